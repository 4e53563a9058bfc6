"""Results for people and machines: terminal, Markdown, HTML, JUnit XML and JSON."""

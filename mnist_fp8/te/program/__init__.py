"""A folder for the path of programs of users: Python imports `sitecustomize` from there when it starts."""

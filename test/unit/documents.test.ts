import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { run } from "../../src/cli/program.ts";
import { REASONS } from "../../src/domain/errors.ts";
import { entries } from "../support/runbook.ts";

const text = (path: string): string => readFileSync(new URL(`../../${path}`, import.meta.url), "utf8");
const DOCUMENTS = ["README.md", "docs/operations.md"];

/** Command lines of ours in a document's blocks and in its running text, without what stands around them. */
function commands(document: string): string[][] {
  const lines = document.replace(/\\\n\s*/g, " ").split("\n");
  const found = lines.flatMap((line) => [...line.matchAll(/(?:\bflow-credentials|npm run -s cli --) ((?:[a-z-]+ )*[a-z-]+(?: (?:--?[a-z][a-z-]*|"[^"]*"|[^\s`#)|>;]+))*)/g)].map((match) => match[1] as string));
  return found.map((command) => command.split(/\s+/)).filter(([first = ""]) => /^[a-z-]+$/.test(first));
}

/** What a command's help says; undefined for a command that there is not. */
async function helpOf(path: readonly string[]): Promise<string | undefined> {
  let printed = "";
  const write = process.stdout.write.bind(process.stdout);
  process.stdout.write = ((chunk: string) => ((printed += chunk), true)) as typeof process.stdout.write;
  try {
    await run([...path, "--help"], { env: {}, print: (line) => (printed += `${line}\n`), note: () => {} });
  } finally {
    process.stdout.write = write;
  }
  return printed.includes(`Usage: flow-credentials ${path.join(" ")}`) ? printed : undefined;
}

const GROUPS = ["service-account", "service-account-key", "keys", "organization", "import", "audit", "credential", "limit"];
const SINGLE = ["serve", "migrate", "token"];

test.each(DOCUMENTS)("%s names only commands and options that there are", async (document) => {
  const all = commands(text(document)).filter(([first = ""]) => GROUPS.includes(first) || SINGLE.includes(first));
  expect(all.length).toBeGreaterThan(10);
  for (const words of all) {
    const path = GROUPS.includes(words[0] ?? "") ? words.slice(0, 2) : words.slice(0, 1);
    const help = await helpOf(path);
    expect([path, help !== undefined]).toEqual([path, true]);
    for (const option of words.filter((word) => word.startsWith("--"))) expect([path, option, help?.includes(`${option} `) || help?.includes(`${option}\n`)]).toEqual([path, option, true]);
  }
});

test.each(DOCUMENTS)("%s names only settings that there are", (document) => {
  const known = text(".env.example");
  const named = new Set([...text(document).matchAll(/\bCREDENTIALS_[A-Z0-9_]*[A-Z0-9]\b(?!…|_…)/g)].map(([name]) => name.replace(/_FILE$/, "")));
  expect([...named].filter((name) => !known.includes(name))).toEqual([]);
});

test("the runbook names only alerts and reasons that there are", () => {
  const [runbook, alerts] = [text("docs/operations.md"), text("deploy/prometheus/alerts.yaml")];
  const named = [...runbook.matchAll(/`(Credentials[A-Za-z]+)`/g)].map((match) => match[1] as string);
  expect(named.filter((name) => !alerts.includes(`alert: ${name}\n`))).toEqual([]);
  const reasons = [...runbook.matchAll(/`([A-Z]+(?:_[A-Z]+)+)`/g)].map((match) => match[1] as string).filter((word) => !word.startsWith("CREDENTIALS_") && !word.startsWith("FLOW_"));
  const statuses = ["FAILED_PRECONDITION", "DATA_LOSS", "RESOURCE_EXHAUSTED"];
  expect(reasons.filter((reason) => !(reason in REASONS) && !statuses.includes(reason))).toEqual([]);
});

/** Which test runs the commands of an entry, or brings about what one is about that has none. */
const TRIED: Readonly<Record<string, string>> = {
  "Install": "test/support/installation.ts",
  "Let an executor in": "test/service/stories-install.test.ts",
  "Upgrade": "test/service/runbook-upgrade.test.ts",
  "The database is away": "test/faults/ha-network.test.ts",
  "The primary is lost": "test/service/stories-daily.test.ts",
  "Back up and restore": "test/service/stories-install.test.ts",
  "Rotate keys": "test/service/stories-keys.test.ts",
  "A master key is lost": "test/service/stories-keys.test.ts",
  "A master key or the database has leaked": "test/service/stories-keys.test.ts",
  "An API key has leaked": "test/service/stories-keys.test.ts",
  "Who has used a secret?": "test/service/stories-daily.test.ts",
  "A grant has died": "test/service/stories-daily.test.ts",
  "A provider is down": "test/faults/refresh-outage.test.ts",
  "The audit has stopped": "test/faults/audit-outage.test.ts",
  "Is the audit whole?": "test/service/stories-daily.test.ts",
  "Tests say `address_not_allowed`": "test/service/stories-daily.test.ts",
  "An organization leaves": "test/service/stories-keys.test.ts",
  "A secret was deleted or overwritten by mistake": "test/service/stories-daily.test.ts",
  "A secret does not open": "test/service/stories-daily.test.ts",
  "A limit is reached": "test/service/stories-daily.test.ts",
  "Move from Fernet": "test/service/stories-daily.test.ts",
};

test("every entry of the runbook is tried, and its commands are run as they stand in it", () => {
  expect(entries().map(({ title }) => title)).toEqual(Object.keys(TRIED));
  for (const { title, blocks } of entries()) {
    const trial = text(TRIED[title] as string);
    if (blocks.length > 0) expect([title, trial.includes(`blocksOf("${title}"`)]).toEqual([title, true]);
  }
});

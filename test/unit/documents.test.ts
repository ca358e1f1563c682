import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { run } from "../../src/cli/program.ts";
import { REASONS } from "../../src/domain/errors.ts";

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

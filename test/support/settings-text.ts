/**
 * What people read about the settings, made from `src/settings.ts`: `.env.example`, and the table in the README between
 * `<!-- settings -->` and `<!-- /settings -->`. Run as a program (`npx node test/support/settings-text.ts`) it writes both.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { SETTINGS } from "../../src/settings.ts";

const MARKS = { start: "<!-- settings -->\n", end: "<!-- /settings -->" };

const entries = Object.entries(SETTINGS).map(([name, setting]) => ({
  name: `CREDENTIALS_${name}`,
  doc: setting.doc,
  fallback: "default" in setting ? setting.default : undefined,
  secret: "secret" in setting,
}));

/** The text of `.env.example`. */
export function envExample(): string {
  const header = [
    "# Every setting of flow-credentials. Uncomment what you change; a setting that is present but empty is an error.",
    "# A setting marked (secret) may be given as a file instead: CREDENTIALS_<NAME>_FILE=/path.",
    "# Made from src/settings.ts by `npx node test/support/settings-text.ts`.",
  ];
  const blocks = entries.map(({ name, doc, fallback = "", secret }) => `\n# ${doc}${secret ? " (secret)" : ""}\n# ${name}=${fallback}`);
  return `${[...header, ...blocks].join("\n")}\n`;
}

/** The README's table of settings, in Markdown. */
export function settingsTable(): string {
  const rows = entries.map(({ name, doc, fallback, secret }) => {
    const standard = fallback === undefined ? "" : fallback === "" ? "empty" : `\`${fallback}\``;
    return `| \`${name}\`${secret ? " (secret)" : ""} | ${standard} | ${doc.replaceAll("|", "\\|")} |`;
  });
  return `${["| setting | default | meaning |", "|---|---|---|", ...rows].join("\n")}\n`;
}

/** The README with its table as it should be; throws where the marks are missing. */
export function withSettingsTable(readme: string): string {
  const [start, end] = [readme.indexOf(MARKS.start) + MARKS.start.length, readme.indexOf(MARKS.end)];
  if (start < MARKS.start.length || end < start) throw new Error("the README has no marks for its settings");
  return readme.slice(0, start) + settingsTable() + readme.slice(end);
}

if (import.meta.main) {
  writeFileSync(".env.example", envExample());
  writeFileSync("README.md", withSettingsTable(readFileSync("README.md", "utf8")));
}

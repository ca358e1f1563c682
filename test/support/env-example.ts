import { SETTINGS } from "../../src/settings.ts";

const HEADER = `# Every setting of flow-credentials. Uncomment what you change; a setting that is present but empty is an error.
# A setting marked (secret) may be given as a file instead: CREDENTIALS_<NAME>_FILE=/path.
# Made from src/settings.ts; \`npx vitest run --config test/vitest.config.ts -u test/house.test.ts\` makes it again.
`;

/** The text of \`.env.example\`. */
export function envExample(): string {
  const entries = Object.entries(SETTINGS).map(([name, setting]) => {
    const value = "default" in setting ? setting.default : "";
    return `\n# ${setting.doc}${"secret" in setting ? " (secret)" : ""}\n# CREDENTIALS_${name}=${value}\n`;
  });
  return HEADER + entries.join("");
}

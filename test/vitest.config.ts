import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

const setup = fileURLToPath(new URL("./global-setup.ts", import.meta.url));

export default defineConfig({
  root: fileURLToPath(new URL("..", import.meta.url)),
  // `flow-credentials/client` is its source here, not a build of it.
  resolve: { alias: { "flow-credentials/client": fileURLToPath(new URL("../src/client/index.ts", import.meta.url)) } },
  test: {
    include: ["test/**/*.test.ts"],
    globalSetup: existsSync(setup) ? [setup] : [],
    reporters: [["default", { summary: false }], fileURLToPath(new URL("./support/plain-reporter.ts", import.meta.url))],
    pool: "forks",
    maxWorkers: 2,
    testTimeout: 30_000,
    hookTimeout: 60_000,
    teardownTimeout: 20_000,
    // An `.only` left behind would hide every other test.
    allowOnly: false,
    watch: false,
  },
});

import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url));
/** `flow-credentials/client` is its source here, not a build of it. Node gets these too, and adds `import` or `require` itself. */
const conditions = ["source"];

export default defineConfig({
  root: here(".."),
  resolve: { conditions },
  ssr: { resolve: { conditions } },
  test: {
    include: ["test/**/*.test.ts"],
    // Whole stories of an operator's day, restarts of PostgreSQL under load, and CPU beside an empty call's: of the long run alone, where they may take their time.
    exclude: process.env["FLOW_TEST_LONG"] === "1" ? [] : ["test/service/stories-*.test.ts", "test/faults/ha-restart.test.ts", "test/service/costs-cpu.test.ts"],
    globalSetup: [here("./global-setup.ts")],
    reporters: [["default", { summary: false }], here("./support/plain-reporter.ts")],
    pool: "forks",
    // One more than two cores: tests often wait, for deadlines and for servers.
    maxWorkers: 3,
    testTimeout: 30_000,
    hookTimeout: 60_000,
    teardownTimeout: 20_000,
    // An `.only` left behind would hide every other test.
    allowOnly: false,
    watch: false,
  },
});

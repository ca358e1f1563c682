#!/usr/bin/env node
import { enableCompileCache } from "node:module";
import { fileURLToPath } from "node:url";

// Halves the time a command takes to start; where the service keeps its own, and for the same reason.
enableCompileCache(fileURLToPath(new URL("../../node_modules/.cache/compile", import.meta.url)));
const { run } = await import("./program.ts");

process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  // Whoever reads a pipe may have read enough, as `head` has.
  if (error.code !== "EPIPE") process.stderr.write(`flow-credentials: standard output cannot be written (${error.code ?? "error"})\n`);
  process.exit(1);
});

const code = await run(process.argv.slice(2), {
  env: process.env,
  print: (line) => process.stdout.write(`${line}\n`),
  taken: () => new Promise((resolve) => process.stdout.write("", () => resolve())),
  note: (line) => process.stderr.write(`${line}\n`),
  // "\r" goes to the start of the line, and "ESC [ K" clears what is left of it (ECMA-48).
  ...(process.stderr.isTTY ? { progress: (line: string | null) => process.stderr.write(`\r\x1b[K${line ?? ""}`) } : {}),
});
// `serve` sets a code of its own.
if (code !== 0) process.exitCode = code;

#!/usr/bin/env node
import { run } from "./program.ts";

const code = await run(process.argv.slice(2), {
  env: process.env,
  print: (line) => process.stdout.write(`${line}\n`),
  note: (line) => process.stderr.write(`${line}\n`),
});
// `serve` sets a code of its own.
if (code !== 0) process.exitCode = code;

import { readFileSync } from "node:fs";
import { createFileRegistry, fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { describeApi } from "./document.ts";

// Reads a descriptor set with its comments on standard input and prints the API reference; `npm run gen` keeps it in gen/openapi.json.

const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, readFileSync(0)));
const { version } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as { version: string };
process.stdout.write(`${JSON.stringify(describeApi(registry, version), null, 1)}\n`);

import { readFileSync } from "node:fs";
import { createFileRegistry, fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { describeGrpc } from "./grpc-reference.ts";

// Reads a descriptor set with its comments on standard input and prints the gRPC reference; `npm run gen` keeps it in docs/grpc.md.

process.stdout.write(describeGrpc(createFileRegistry(fromBinary(FileDescriptorSetSchema, readFileSync(0)))));

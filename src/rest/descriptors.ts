import { readFileSync } from "node:fs";
import { createFileRegistry, type FileRegistry, fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";

/** The descriptors of every service, with their `google.api.http` options, from the committed descriptor set. */
export function loadDescriptors(): FileRegistry {
  const bytes = readFileSync(new URL("../../gen/descriptors.binpb", import.meta.url));
  return createFileRegistry(fromBinary(FileDescriptorSetSchema, bytes));
}

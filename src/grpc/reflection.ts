import { existsSync, readFileSync } from "node:fs";
import { once } from "node:events";
import { createFileRegistry, type DescExtension, type DescFile, type FileRegistry, fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema, FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { BinaryReader } from "@bufbuild/protobuf/wire";
import { type ServerDuplexStream, status } from "@grpc/grpc-js";
import type { ServerReflectionRequest as Request, ServerReflectionResponse as Response, ServerReflectionServer } from "../../gen/grpc/reflection/v1/reflection.ts";
import { MAX_CONNECTIONS } from "./door.ts";
import { createQuota } from "./quota.ts";

type Stream = ServerDuplexStream<Request, Response>;
type Answer = NonNullable<Response["messageResponse"]>;

/** Streams at once on one connection, and in all. */
const MAX_STREAMS_PER_CONNECTION = 4;
const MAX_STREAMS = MAX_STREAMS_PER_CONNECTION * MAX_CONNECTIONS;

/** Server reflection (https://grpc.io/docs/guides/reflection/); v1 and v1alpha are one and the same on the wire. */
export interface Reflection {
  readonly implementation: ServerReflectionServer;
  /** Ends every stream, so that its connection can close. */
  close(): void;
}

/** The descriptors as buf built them. `gen/` lies two folders up from the source and three from the build in `dist/`. Throws where they are in neither. */
function findDescriptors(): URL {
  const places = ["../../gen/descriptors.binpb", "../../../gen/descriptors.binpb"].map((path) => new URL(path, import.meta.url));
  const place = places.find((path) => existsSync(path));
  if (place === undefined) throw new Error("gen/descriptors.binpb is missing");
  return place;
}

/** The bytes of each file by name, exactly as in the set: encoding them again could reorder options that this code does not know. */
function fileBytes(set: Buffer): Map<string, Buffer> {
  const files = new Map<string, Buffer>();
  const reader = new BinaryReader(set);
  while (reader.pos < reader.len) {
    reader.tag();
    const bytes = Buffer.from(reader.bytes());
    files.set(fromBinary(FileDescriptorProtoSchema, bytes).name, bytes);
  }
  return files;
}

const notFound: Answer = { $case: "errorResponse", value: { errorCode: status.NOT_FOUND, errorMessage: "not found" } };

/** What reflection knows of the files: what they declare, and their bytes by name. */
interface Files {
  readonly registry: FileRegistry;
  readonly bytes: ReadonlyMap<string, Buffer>;
}

function readFiles(place: URL): Files {
  const set = readFileSync(place);
  return { registry: createFileRegistry(fromBinary(FileDescriptorSetSchema, set)), bytes: fileBytes(set) };
}

/** Makes the reflection service, which lists these services. Files are read when somebody first asks for one: few ever do, and a start does not wait for it. */
export function createReflection(services: readonly string[]): Reflection {
  const place = findDescriptors();
  let read: Files | undefined;
  const files = () => (read ??= readFiles(place));
  const streams = new Set<Stream>();
  const quota = createQuota({ perConnection: MAX_STREAMS_PER_CONNECTION, total: MAX_STREAMS });

  const collect = (file: DescFile, found: Set<DescFile>): Set<DescFile> => {
    if (!found.has(file)) {
      found.add(file);
      for (const dependency of file.dependencies) collect(dependency, found);
    }
    return found;
  };
  const withImports = (file: DescFile | undefined): Answer => {
    if (!file) return notFound;
    const fileDescriptorProto = [...collect(file, new Set())].map(({ proto }) => files().bytes.get(proto.name)).filter((proto) => proto !== undefined);
    return { $case: "fileDescriptorResponse", value: { fileDescriptorProto } };
  };
  const answer = (question: Request["messageRequest"]): Answer => {
    if (question?.$case === "listServices") return { $case: "listServicesResponse", value: { service: services.map((name) => ({ name })) } };
    const { registry } = files();
    switch (question?.$case) {
      case "fileByFilename":
        return withImports([...registry.files].find(({ proto }) => proto.name === question.value));
      case "fileContainingSymbol":
        return withImports(fileOf(registry, question.value));
      case "fileContainingExtension":
        return withImports(extensions(registry, question.value.containingType).find(({ number }) => number === question.value.extensionNumber)?.file);
      case "allExtensionNumbersOfType":
        if (!registry.getMessage(question.value)) return notFound;
        return {
          $case: "allExtensionNumbersResponse",
          value: { baseTypeName: question.value, extensionNumber: extensions(registry, question.value).map(({ number }) => number) },
        };
      default:
        return { $case: "errorResponse", value: { errorCode: status.INVALID_ARGUMENT, errorMessage: "unknown request" } };
    }
  };
  return {
    implementation: {
      serverReflectionInfo(stream) {
        const peer = stream.getPeer();
        if (!quota.take(peer)) {
          stream.emit("error", { code: status.RESOURCE_EXHAUSTED, details: "too many streams" });
          return;
        }
        stream.once("cancelled", () => quota.release(peer));
        streams.add(stream);
        converse(stream, answer)
          .catch(() => stream.emit("error", { code: status.CANCELLED, details: "the stream broke" }))
          .finally(() => streams.delete(stream));
      },
    },
    close() {
      for (const stream of streams) stream.end();
      streams.clear();
    },
  };
}

/** Answers one question at a time, and reads the next only when the client takes the answers. */
async function converse(stream: Stream, answer: (question: Request["messageRequest"]) => Answer): Promise<void> {
  for await (const request of stream as AsyncIterable<Request>) {
    const taken = stream.write({ validHost: request.host, originalRequest: request, messageResponse: answer(request.messageRequest) });
    if (!taken) await Promise.race([once(stream, "drain"), once(stream, "cancelled")]);
    if (stream.cancelled || stream.writableEnded) return;
  }
  stream.end();
}

/** The file that declares a symbol: a type or service by itself, a method or field by its parent. */
function fileOf(registry: FileRegistry, symbol: string): DescFile | undefined {
  const declared = registry.get(symbol);
  if (declared) return declared.file;
  const dot = symbol.lastIndexOf(".");
  const parent = registry.get(symbol.slice(0, dot));
  const leaf = symbol.slice(dot + 1);
  const members = parent?.kind === "service" ? parent.methods : parent?.kind === "message" ? parent.fields : [];
  return members.some(({ name }) => name === leaf) ? parent?.file : undefined;
}

/** Extensions of a message type, in whatever file they are declared. */
function extensions(registry: FileRegistry, typeName: string): DescExtension[] {
  return [...registry.files].flatMap((file) => file.extensions).filter(({ extendee }) => extendee.typeName === typeName);
}

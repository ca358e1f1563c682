import { catalog } from "../providers/index.ts";
import { type Json, refTo } from "./schemas.ts";

// What a `credentials` object may be, from the schemas of the providers: one for each shape, under the name of those that share it.

const pascal = (word: string): string => word.split("_").map((part) => `${part.slice(0, 1).toUpperCase()}${part.slice(1)}`).join("");

interface Shape {
  readonly name: string;
  readonly schema: Json;
}

function shapes(): Shape[] {
  const found = new Map<string, Shape>();
  for (const { provider, displayName, credentialProviders } of catalog()) {
    for (const { name: type, credentialSchema } of credentialProviders) {
      const { $schema: _, ...schema } = credentialSchema as { readonly [key: string]: Json };
      const text = JSON.stringify(schema);
      const title = `${displayName}: ${type}`;
      // Types that share a shape are told once.
      if (!found.has(text)) found.set(text, { name: `${pascal(provider)}${pascal(type)}`, schema: { ...schema, title: typeof schema["title"] === "string" ? schema["title"] : title } });
    }
  }
  return [...found.values()];
}

/** The schemas, by name. */
export const credentialSchemas = (): Record<string, Json> => Object.fromEntries(shapes().map(({ name, schema }) => [name, schema]));

/** References to all of them, for the field of a request that may be any. */
export const bodyRefs = (): Json[] => shapes().map(({ name }) => refTo(name));

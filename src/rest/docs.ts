import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import type { Answer } from "./answer.ts";

/** Shows the reference with nothing from elsewhere: no validator, no fonts, no analytics. A token that is entered is not kept. */
const START = `window.onload = () => SwaggerUIBundle({ url: "/openapi.json", dom_id: "#docs", deepLinking: true, validatorUrl: null, persistAuthorization: false });\n`;

const PAGE = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>flow-credentials</title>
<link rel="stylesheet" href="/docs/swagger-ui.css">
<link rel="icon" type="image/png" href="data:,">
<main id="docs"></main>
<noscript>This page needs JavaScript; the reference itself is at <a href="/openapi.json">/openapi.json</a>.</noscript>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</html>
`;

/** The page may talk to this service and to nobody else. Swagger UI sets styles on elements, and has images in its style sheet. */
const POLICY = [
  "default-src 'none'", "script-src 'self'", "style-src 'self' 'unsafe-inline'", "img-src 'self' data:", "connect-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
].join("; ");

const text = (contentType: string, body: string, headers: Readonly<Record<string, string>> = {}): Answer => ({ status: 200, headers: { "content-type": `${contentType}; charset=utf-8`, ...headers }, body });

/** The API reference and the page that shows it, by path. Files are read when they are first asked for, and kept. */
export function docsPages(): ReadonlyMap<string, () => Promise<Answer>> {
  // The package's own main file looks for more than is needed.
  const assets = dirname(createRequire(import.meta.url).resolve("swagger-ui-dist/package.json"));
  const asset = (name: string, contentType: string) => once(() => text(contentType, readFileSync(join(assets, name), "utf8")));
  return new Map([
    ["/openapi.json", once(() => text("application/json", readFileSync(new URL("../../gen/openapi.json", import.meta.url), "utf8")))],
    ["/docs", once(() => text("text/html", PAGE, { "content-security-policy": POLICY, "referrer-policy": "no-referrer" }))],
    ["/docs/start.js", once(() => text("text/javascript", START))],
    ["/docs/swagger-ui.css", asset("swagger-ui.css", "text/css")],
    ["/docs/swagger-ui-bundle.js", asset("swagger-ui-bundle.js", "text/javascript")],
  ]);
}

function once(make: () => Answer): () => Promise<Answer> {
  let made: Answer | undefined;
  return async () => (made ??= make());
}

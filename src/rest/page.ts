import { createHash } from "node:crypto";

/** What a page tells. */
export interface Page {
  readonly title: string;
  readonly paragraphs: readonly string[];
  /** Small print. */
  readonly note: string;
  readonly tone: "good" | "bad";
  /** Who hears what came of it, where the page was opened by another one, and what they hear. */
  readonly tell?: { readonly origins: readonly string[]; readonly message: Readonly<Record<string, string>> } | undefined;
}

const STYLE = `
:root { color-scheme: light dark; --page: #f4f5f7; --card: #fff; --text: #1d2129; --soft: #5c6470; --line: #e1e4e9; --good: #137a4b; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --page: #15181d; --card: #1e2229; --text: #eceef2; --soft: #a2aab7; --line: #323843; --good: #4cc38a; --bad: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; padding: 24px; background: var(--page); color: var(--text); font: 16px/1.5 system-ui, sans-serif; }
main { width: 100%; max-width: 440px; padding: 40px 32px 28px; background: var(--card); border: 1px solid var(--line); border-radius: 14px; text-align: center; }
svg { width: 52px; height: 52px; fill: none; stroke: currentColor; stroke-width: 3.5; stroke-linecap: round; stroke-linejoin: round; }
.good svg { color: var(--good); }
.bad svg { color: var(--bad); }
h1 { margin: 14px 0 10px; font-size: 22px; line-height: 1.3; }
p { margin: 0 0 10px; overflow-wrap: anywhere; }
small { display: block; margin-top: 22px; padding-top: 16px; border-top: 1px solid var(--line); color: var(--soft); font-size: 12.5px; overflow-wrap: anywhere; }
`;

/** Takes the code out of the address bar and the history, tells whoever opened the page, and closes it where that was told. */
const SCRIPT = `
history.replaceState(null, "", location.pathname);
const { origins, message } = document.querySelector("main").dataset;
if (window.opener && origins) {
  for (const origin of JSON.parse(origins)) window.opener.postMessage(JSON.parse(message), origin);
  window.close();
}
`;

const SIGN = {
  good: `<path d="M17 26.5l6.5 6.5L36 20"/>`,
  bad: `<path d="M26 15v14M26 36.2v.1"/>`,
} as const;

const hash = (text: string): string => `'sha256-${createHash("sha256").update(text).digest("base64")}'`;

/** The page's one style and one script run, and nothing else: it loads nothing, sends nothing, and stands in no frame. */
const POLICY = ["default-src 'none'", `style-src ${hash(STYLE)}`, `script-src ${hash(SCRIPT)}`, "img-src data:", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"].join("; ");

/** Headers of a page: its address holds a code and a state, which go nowhere from here. */
export const PAGE_HEADERS: Readonly<Record<string, string>> = {
  "content-type": "text/html; charset=utf-8",
  "content-security-policy": POLICY,
  "referrer-policy": "no-referrer",
  "x-frame-options": "DENY",
};

const ENTITIES: Readonly<Record<string, string>> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
const escaped = (text: string): string => text.replace(/[&<>"']/g, (character) => ENTITIES[character] as string);

/** A page as HTML. Every text is escaped. */
export function renderPage({ title, paragraphs, note, tone, tell }: Page): string {
  const told = tell && tell.origins.length > 0 ? ` data-origins="${escaped(JSON.stringify(tell.origins))}" data-message="${escaped(JSON.stringify(tell.message))}"` : "";
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>${escaped(title)}</title>
<link rel="icon" href="data:,">
<style>${STYLE}</style>
<main class="${tone}"${told}>
<svg viewBox="0 0 52 52" aria-hidden="true"><circle cx="26" cy="26" r="24"/>${SIGN[tone]}</svg>
<h1>${escaped(title)}</h1>
${paragraphs.map((text) => `<p>${escaped(text)}</p>`).join("\n")}
<small>${escaped(note)}</small>
</main>
<script>${SCRIPT}</script>
</html>
`;
}

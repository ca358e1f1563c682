import { accessSync, constants } from "node:fs";
import { type Browser, chromium, type Page } from "playwright-core";

const CHROMIUM = "/usr/bin/chromium";
const FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];

/** Whether Debian's package `chromium` is installed. */
export const chromiumInstalled = (() => {
  try {
    accessSync(CHROMIUM, constants.X_OK);
    return true;
  } catch {
    return false;
  }
})();

/** A real browser without a window. */
export const startChromium = (): Promise<Browser> => chromium.launch({ executablePath: CHROMIUM, args: FLAGS });

/** What a page complains about, from now on. */
export function complaints(page: Page): string[] {
  const lines: string[] = [];
  page.on("console", (message) => void (["error", "warning"].includes(message.type()) && lines.push(message.text())));
  page.on("pageerror", (error) => void lines.push(error.message));
  return lines;
}

/** Keeps a picture of a page where somebody wants to look at it: in the folder `FLOW_TEST_SCREENSHOTS`. */
export async function picture(page: Page, name: string): Promise<void> {
  const folder = process.env["FLOW_TEST_SCREENSHOTS"];
  if (folder !== undefined) await page.screenshot({ path: `${folder}/${name}.png` });
}

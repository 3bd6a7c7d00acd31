// A Chromium and pages in it, for the tests of the playground. CHROMIUM names the browser, SEDGE_URL the edge under test.

import { chromium } from "playwright-core";

// Long, since a busy machine is no failure.
const WAIT_MS = 120_000;

export const EDGE = new URL(process.env.SEDGE_URL ?? "http://127.0.0.1:8080").origin;

export function launch(args = []) {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: [
      "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
      "--disable-background-networking", "--disable-component-update", "--disable-sync", ...args,
    ],
  });
}

// The playground at `origin`, once it has heard from the edge. `faults` gathers what the page itself did wrong:
// exceptions and refusals by its own policy.
export async function openPlayground(browser, origin, options = {}) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  page.setDefaultTimeout(WAIT_MS);
  const faults = [];
  page.on("pageerror", (error) => faults.push(error.message));
  page.on("console", (line) => {
    if (/Content Security Policy|Refused to|TrustedHTML/.test(line.text())) faults.push(line.text());
  });
  await page.goto(origin + "/");
  await page.waitForFunction(() => document.getElementById("health").dataset.ready !== undefined
    && document.getElementById("model").value !== "");
  return { page, faults, close: () => context.close() };
}

export const state = (page) => page.evaluate(() => document.body.dataset.state);
export const text = (page, id) => page.evaluate((id) => document.getElementById(id).textContent, id);

export const reached = (page, ...states) =>
  page.waitForFunction((states) => states.includes(document.body.dataset.state), states);

// Waits until `id` holds at least `least` characters.
export const grown = (page, id, least) =>
  page.waitForFunction(([id, least]) => document.getElementById(id).textContent.length >= least, [id, least]);

export const says = (page, id, expected) =>
  page.waitForFunction(([id, expected]) => document.getElementById(id).textContent === expected, [id, expected]);

// Moves a slider as a person does: the page hears of it.
export const slide = (page, id, value) => page.locator("#" + id).fill(String(value));

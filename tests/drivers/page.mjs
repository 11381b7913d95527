// The live page in a real Chromium: `node page.mjs URL [FOLDER]`. Somebody named <img src=x onerror=alert(1)> holds the
// only connection of a pool, and one waits. With a folder, pictures of it are left there.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const [url, folder] = process.argv.slice(2);
const profile = mkdtempSync(join(tmpdir(), "page-"));
const flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"];
const chromium = spawn(
  process.env.CHROMIUM ?? "chromium",
  [...flags, "--remote-debugging-pipe", `--user-data-dir=${profile}`, "about:blank"],
  { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] },
);
process.on("exit", () => chromium.kill("SIGKILL"));
const watchdog = setTimeout(() => process.exit(2), 60_000);

// === The protocol of its developer tools, over pipes: JSON with a zero behind it ===

const waiting = new Map();
const complaints = [];
let [unread, count] = ["", 0];
chromium.stdio[4].on("data", (bytes) => {
  const messages = (unread + bytes).split("\0");
  unread = messages.pop();
  for (const message of messages.map((text) => JSON.parse(text))) {
    if (message.id) waiting.get(message.id)(message);
    else if (["Runtime.exceptionThrown", "Log.entryAdded"].includes(message.method)) complaints.push(message.params);
    else if (message.method === "Page.javascriptDialogOpening") complaints.push({ dialog: message.params.message });
  }
});
let sessionId;
async function tell(method, params = {}) {
  const id = ++count;
  const answer = new Promise((resolve) => waiting.set(id, resolve));
  chromium.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
  const { result, error } = await answer;
  assert.equal(error, undefined, method);
  return result;
}
async function evaluate(expression) {
  const { result, exceptionDetails } = await tell("Runtime.evaluate", { expression, returnByValue: true });
  assert.equal(exceptionDetails, undefined, expression);
  return result.value;
}
async function becomes(expression) {
  for (let tries = 0; tries < 100; tries += 1) {
    if (await evaluate(expression)) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  assert.fail(`in vain: ${expression}`);
}

// === What is looked at ===

const { targetId } = await tell("Target.createTarget", { url: "about:blank" });
({ sessionId } = await tell("Target.attachToTarget", { targetId, flatten: true }));
for (const domain of ["Runtime", "Log", "Page"]) await tell(`${domain}.enable`);

for (const [name, width, height, scheme] of [["desk-light", 1440, 900, "light"], ["phone-dark", 390, 844, "dark"]]) {
  const mobile = width < 500;
  await tell("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: 1, mobile });
  await tell("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: scheme }] });
  await tell("Page.navigate", { url });
  await becomes("document.body?.dataset.level === 'critical'");
  await becomes("/^Pool primary is full: 1 of 1 in use, [0-9]+ waits?, oldest /.test(document.getElementById('sentence').textContent)");
  await becomes("document.body.innerText.includes('<img src=x onerror=alert(1)>')");
  assert.equal(await evaluate("document.querySelectorAll('[onerror], img[src=x]').length"), 0, "a name became an element");
  assert.equal(await evaluate("document.querySelectorAll('.queue i').length > 0"), true, "somebody stands on deck");
  assert.equal(await evaluate("document.querySelectorAll('.cell[data-is=active], .cell[data-is=pinned]').length > 2"), true);
  assert.ok((await evaluate("document.documentElement.scrollWidth")) <= width, `${name} is wider than ${width}`);
  assert.equal(await evaluate("[...document.querySelectorAll('thead th')].filter((cell) => cell.scope !== 'col').length"), 0);
  assert.ok((await evaluate("document.title")).endsWith(" wait · Bulkhead"));
  if (folder) {
    const { data } = await tell("Page.captureScreenshot", { format: "png" });
    writeFileSync(join(folder, `${name}.png`), Buffer.from(data, "base64"));
  }
}
// The first key leads past the header.
await tell("Input.dispatchKeyEvent", { type: "keyDown", key: "Tab", code: "Tab", windowsVirtualKeyCode: 9 });
assert.equal(await evaluate("document.activeElement.className"), "skip");
// Answers of 501 are those of a version without them; whatever else the browser complains of is wrong.
const wrong = complaints.filter((complaint) => complaint.entry?.source !== "network");
assert.deepEqual(wrong, [], "the browser complains");

clearTimeout(watchdog);
chromium.kill();
await new Promise((resolve) => chromium.once("exit", resolve));
rmSync(profile, { recursive: true, force: true });

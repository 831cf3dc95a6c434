// What people see who open the link of `tctl users add`, in a real browser against the real programs.
//
//   TELEPORT_BIN_DIR   folder with teleport and tctl; default ../../target/debug
//   CHROMIUM           the browser; default /usr/bin/chromium
//   SCREENSHOTS        folder for pictures of each page; default none
//   ASSETS             folder with index.html, style.css and app.js to use in place of those in the program,
//                      to look at changes without building; default none

import assert from "node:assert/strict";
import { readFile, mkdir } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";

import jsQR from "jsqr";
import { URI } from "otpauth";
import { chromium } from "playwright-core";
import { PNG } from "pngjs";

import { Cluster } from "./cluster.js";

const { CHROMIUM = "/usr/bin/chromium", SCREENSHOTS, ASSETS } = process.env;
const PASSWORD = "correct horse battery";

let cluster, browser;

before(async () => {
  cluster = await Cluster.start();
  // Chromium's sandbox does not run for root, which is who tests are in containers.
  browser = await chromium.launch({ executablePath: CHROMIUM, chromiumSandbox: process.getuid() !== 0 });
  if (SCREENSHOTS) await mkdir(SCREENSHOTS, { recursive: true });
}, { timeout: 120_000 });

after(async () => {
  await browser?.close();
  await cluster?.stop();
}, { timeout: 60_000 });

/** A tab whose complaints fail the test: errors of scripts, refused by the content security policy, or logged. */
async function visit(t, options = {}) {
  const context = await browser.newContext({ ignoreHTTPSErrors: true, viewport: { width: 1000, height: 1000 }, ...options });
  t.after(() => context.close());
  context.setDefaultTimeout(20_000);
  const page = await context.newPage();
  const complaints = [];
  await page.addInitScript(() => {
    addEventListener("securitypolicyviolation", (event) => console.error(`CSP: ${event.violatedDirective} ${event.blockedURI}`));
  });
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("console", (message) => {
    // The browser's own note of an answer that is not a success; the tests look at what the page makes of it.
    const refused = /^Failed to load resource: the server responded/.test(message.text()) && message.location().url.includes("/webapi/");
    if (["error", "warning"].includes(message.type()) && !refused) complaints.push(message.text());
  });
  if (ASSETS) await useAssets(page);
  t.after(() => assert.deepEqual(complaints, []));
  return page;
}

async function useAssets(page) {
  await page.route(/\/web\/app\/(style\.css|app\.js)$/, (route) => route.fulfill({ path: join(ASSETS, route.request().url().split("/").pop()) }));
  await page.route(/\/web(\/(invite|reset)\/.*)?$/, async (route) => {
    const response = await route.fetch();
    const csrf = (await response.text()).match(/name="csrf" content="(\w+)"/)[1];
    const body = (await readFile(join(ASSETS, "index.html"), "utf8")).replace("{{csrf}}", csrf);
    await route.fulfill({ response, body });
  });
}

async function picture(page, name) {
  if (SCREENSHOTS) await page.screenshot({ path: join(SCREENSHOTS, `${name}.png`), fullPage: true });
}

/** The generator of codes behind the picture on the page. */
async function authenticator(page) {
  const source = await page.getByRole("img", { name: /QR code/ }).getAttribute("src");
  const image = PNG.sync.read(Buffer.from(source.split(",")[1], "base64"));
  const code = jsQR(new Uint8ClampedArray(image.data), image.width, image.height);
  assert.ok(code, "the QR code can be read");
  return URI.parse(code.data);
}

/** A code that the generator will not give within the minutes of a test. */
function wrongCode(device) {
  const near = new Set(Array.from({ length: 40 }, (_, i) => device.generate({ timestamp: Date.now() + (i - 20) * 30_000 })));
  return ["000000", "111111", "222222", "333333"].find((code) => !near.has(code)) ?? "444444";
}

const form = (page) => ({
  password: page.getByLabel("Password", { exact: true }),
  again: page.getByLabel("Repeat the password"),
  code: page.getByLabel(/^Code/),
  submit: page.getByRole("button", { name: /^(Create account|Set password)$/ }),
});

async function fill(page, password, code) {
  const { password: first, again, code: digits } = form(page);
  await first.fill(password);
  await again.fill(password);
  await digits.fill(code);
}

const heading = (page, text) => page.getByRole("heading", { level: 1, name: text }).waitFor();

test("an invitation is accepted once, and its link then says that it was used", async (t) => {
  const page = await visit(t);
  const link = await cluster.invite("alice");
  await page.goto(link);
  await heading(page, "Welcome, alice");
  assert.match(await page.title(), /^Create your account · main\.test$/);
  const device = await authenticator(page);
  assert.match(device.label, /^alice@/);
  await picture(page, "invite");
  await fill(page, PASSWORD, device.generate());
  await form(page).submit.click();
  await heading(page, "You are set up");
  await page.getByText(/tsh login --proxy=localhost:\d+ --user=alice/).waitFor();
  await page.context().grantPermissions(["clipboard-read", "clipboard-write"]);
  await page.getByRole("button", { name: "Copy" }).click();
  await page.getByRole("button", { name: "Copied" }).waitFor();
  assert.match(await page.evaluate(() => navigator.clipboard.readText()), /^tsh login --proxy=localhost:\d+ --user=alice$/);
  await picture(page, "done");
  await page.goto(link);
  await heading(page, "This link no longer works");
  await page.getByText("It was used already").waitFor();
  assert.equal(await page.getByRole("textbox").count(), 0);
  await picture(page, "used");
});

test("a wrong code is said beside the code, nothing typed is lost, and the right one then works", async (t) => {
  const page = await visit(t);
  await page.goto(await cluster.invite("bob"));
  const device = await authenticator(page);
  const { password, again, code, submit } = form(page);
  const wrong = wrongCode(device);
  await fill(page, PASSWORD, wrong);
  await submit.click();
  await page.getByText("This code is wrong or too old.").waitFor();
  assert.equal(await code.getAttribute("aria-invalid"), "true");
  assert.equal(await code.evaluate((field) => field === document.activeElement), true, "the code has the focus");
  assert.deepEqual([await password.inputValue(), await again.inputValue(), await code.inputValue()], [PASSWORD, PASSWORD, wrong]);
  await picture(page, "wrong-code");
  await code.fill(device.generate());
  await page.getByText("This code is wrong").waitFor({ state: "hidden" });
  await submit.click();
  await heading(page, "You are set up");
});

test("a password that is short, long or not repeated is refused before anything is sent", async (t) => {
  const page = await visit(t);
  await page.goto(await cluster.invite("carol"));
  const device = await authenticator(page);
  const { password, again, code, submit } = form(page);
  let sent = 0;
  page.on("request", (request) => { if (request.method() === "PUT") sent += 1; });

  await fill(page, "eleven char", device.generate());
  await submit.click();
  await page.getByText("it needs at least 12 characters").waitFor();
  assert.equal(await password.getAttribute("aria-invalid"), "true");
  assert.equal(await password.evaluate((field) => field === document.activeElement), true, "the password has the focus");
  assert.deepEqual([await password.inputValue(), await again.inputValue()], ["eleven char", "eleven char"]);
  assert.match(await code.inputValue(), /^\d{6}$/);
  await picture(page, "short-password");

  await fill(page, "x".repeat(129), "12 34");
  await submit.click();
  await page.getByText("it may have 128 characters at most").waitFor();
  await page.getByText("Enter the six digits").waitFor();

  await password.fill(PASSWORD);
  await again.fill(PASSWORD + "?");
  await submit.click();
  await page.getByText("This is not the same password.").waitFor();
  assert.equal(sent, 0);
  await again.fill(PASSWORD);
  await page.getByText("This is not the same password.").waitFor({ state: "hidden" });
});

test("the page fits a phone, in the dark as well", async (t) => {
  for (const colorScheme of ["light", "dark"]) {
    const page = await visit(t, { viewport: { width: 375, height: 720 }, colorScheme, hasTouch: true, isMobile: true });
    const link = await cluster.invite(`phone-${colorScheme}-${"with-a-long-name".repeat(3)}`);
    await page.goto(link);
    await heading(page, /^Welcome/);
    const width = () => page.evaluate(() => document.documentElement.scrollWidth);
    assert.ok((await width()) <= 375, "nothing scrolls sideways");
    await picture(page, `phone-${colorScheme}`);
    const device = await authenticator(page);
    await fill(page, "short", "");
    await form(page).submit.tap();
    await page.getByText("it needs at least 12 characters").waitFor();
    await picture(page, `phone-${colorScheme}-errors`);
    await fill(page, PASSWORD, device.generate());
    await form(page).submit.tap();
    await heading(page, "You are set up");
    assert.ok((await width()) <= 375, "nothing scrolls sideways");
    await picture(page, `phone-${colorScheme}-done`);
  }
});

test("the keyboard is enough", async (t) => {
  const page = await visit(t);
  await page.goto(await cluster.invite("dave"));
  const device = await authenticator(page);
  const press = (key) => page.keyboard.press(key);
  assert.equal(await page.evaluate(() => document.activeElement.id), "password", "typing can begin at once");
  await page.keyboard.type(PASSWORD);
  await press("Tab");
  await page.keyboard.type(PASSWORD);
  await press("Tab");
  await press("Space");
  assert.equal(await form(page).password.getAttribute("type"), "text", "the space bar shows what was typed");
  await press("Space");
  assert.equal(await form(page).password.getAttribute("type"), "password");
  await press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.tagName), "SUMMARY", "the key can be shown");
  await press("Tab");
  const code = device.generate();
  await page.keyboard.type(`${code.slice(0, 3)} ${code.slice(3)}`);
  await press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.type), "submit");
  const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
  assert.notEqual(outline, "none", "the focus can be seen");
  await picture(page, "keyboard");
  await press("Enter");
  await heading(page, "You are set up");
  assert.equal(await page.evaluate(() => document.activeElement.tagName), "H1", "a screen reader is told");
});

test("whoever is asked for a new password is not told that the account is new", async (t) => {
  const page = await visit(t);
  const user = "erin";
  await page.goto(await cluster.invite(user));
  await fill(page, PASSWORD, (await authenticator(page)).generate());
  await form(page).submit.click();
  await heading(page, "You are set up");
  await page.goto(await cluster.reset(user));
  await heading(page, `Hello, ${user}`);
  await fill(page, `${PASSWORD} 2`, (await authenticator(page)).generate());
  await page.getByRole("button", { name: "Set password" }).click();
  await heading(page, "You are set up");
});

test("a link that never was one, and the front page, tell what to do", async (t) => {
  const page = await visit(t);
  for (const path of ["/web/invite/0123456789abcdef", "/web/reset/%ff%zz", "/web/invite/"]) {
    await page.goto(cluster.url + path);
    await heading(page, "This link no longer works");
  }
  await page.goto(`${cluster.url}/web`);
  await heading(page, "Log in from a terminal");
  await page.getByText(/tsh login --proxy=localhost:\d+/).waitFor();
  await picture(page, "front");
});

test("a cluster that tells the key of the picture lets it be typed, one that does not shows no empty place", async (t) => {
  const page = await visit(t);
  const link = await cluster.invite("grace");
  const answers = /users\/password\/token\//;
  for (const secret of [undefined, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"]) {
    await page.route(answers, async (route) => {
      const response = await route.fetch();
      await route.fulfill({ response, json: { ...(await response.json()), secret } });
    }, { times: 1 });
    await page.goto(link);
    await heading(page, "Welcome, grace");
    const summary = page.getByText("Cannot scan it?");
    assert.equal(await summary.isVisible(), secret !== undefined);
    if (secret) {
      await summary.click();
      await page.getByText("ABCD EFGH IJKL MNOP QRST UVWX YZ23 4567").waitFor();
      await picture(page, "typed-key");
    }
  }
});

test("trouble on the way is told apart from a bad link and can be tried again", async (t) => {
  const page = await visit(t);
  const link = await cluster.invite("frank");
  const target = /users\/password\/token\//;
  await page.route(target, (route) => route.fulfill({ status: 429, json: { error: { message: "too many requests" } } }), { times: 1 });
  await page.goto(link);
  await heading(page, "This page could not be loaded");
  await page.getByText("Wait a minute and try again.").waitFor();
  await picture(page, "trouble");
  await page.getByRole("button", { name: "Try again" }).click();
  await heading(page, "Welcome, frank");
});

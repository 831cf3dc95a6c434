// The pages of the front door: they show what the path asks for and speak to the web API beside them.
"use strict";

const csrf = document.querySelector("meta[name=csrf]").content;
const view = document.getElementById("view");
const config = globalThis.GRV_CONFIG ?? {};
const cluster = config.proxyCluster ?? location.hostname;
const secondFactor = config.auth?.second_factor ?? "otp";

/** What passwords of local users must have; the Auth Service checks the same in bytes of UTF-8. */
const PASSWORD = { fewest: 12, mostBytes: 128 };

/** An answer of the web API that is not a success; `status` 0 means that there was no answer. */
class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Calls the web API; a refusal is thrown with the server's own words. */
async function call(method, path, body) {
  let response;
  try {
    response = await fetch("/v1/webapi" + path, {
      method,
      headers: { "Content-Type": "application/json", "X-CSRF-Token": csrf },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.timeout(30_000),
    });
  } catch {
    throw new Refusal(0, "The server cannot be reached. Check the network and try again.");
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Refusal(response.status, answer.error?.message ?? `The server answered ${response.status}.`);
  return answer;
}

/** Replaces the view by a template, names the page, and tells screen readers by moving the focus. */
function show(id, title, user) {
  const moved = view.childElementCount > 0;
  view.replaceChildren(document.getElementById(id).content.cloneNode(true));
  document.title = `${title} · ${cluster}`;
  const command = view.querySelector("[data-command]");
  if (command) offer(command, user);
  if (moved) view.querySelector("h1")?.focus();
  return view;
}

/** Fills in the command that logs in here, with a button that copies it. */
function offer(command, user) {
  const words = ["tsh", "login", `--proxy=${location.hostname}:${location.port || 443}`];
  if (/^[\w.@+-]+$/.test(user ?? "")) words.push(`--user=${user}`);
  // Lines break between words only: a break inside a flag makes it look like two.
  command.replaceChildren(...words.flatMap((word) => [Object.assign(document.createElement("span"), { textContent: word }), " "]).slice(0, -1));
  const button = view.querySelector("[data-copy]");
  if (!navigator.clipboard) return;
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(command.textContent).then(
      () => { button.textContent = "Copied"; },
      () => getSelection().selectAllChildren(command),
    );
  });
}

const base64 = (text) => btoa(String.fromCharCode(...new TextEncoder().encode(text)));
const digits = (text) => text.replace(/\s/g, "");

/** What is wrong with each field, in the order of the page; fields without a fault are absent. */
function faults({ password, repeat, code }, codeNeeded) {
  const found = {};
  if ([...password].length < PASSWORD.fewest) {
    found.password = `The password is too short: it needs at least ${PASSWORD.fewest} characters.`;
  } else if (new TextEncoder().encode(password).length > PASSWORD.mostBytes) {
    found.password = `The password is too long: it may have ${PASSWORD.mostBytes} characters at most.`;
  } else if (password !== repeat) {
    found.repeat = repeat === "" ? "Type the password a second time." : "This is not the same password.";
  }
  if (code !== undefined && (codeNeeded || code !== "") && !/^[0-9]{6}$/.test(digits(code))) {
    found.code = "Enter the six digits that the app shows.";
  }
  return found;
}

/** The server's refusal as faults of fields, or as one for the whole form (the name ""). */
function faultsOf(refusal) {
  if (/totp token/i.test(refusal.message)) {
    return { code: "This code is wrong or too old. Wait for the next one and enter that; if it fails too, check the clock of your device." };
  }
  if (/password is too (short|long)/i.test(refusal.message)) {
    return { password: `The ${refusal.message.split(",")[0]}.` };
  }
  if (refusal.status === 429) return { "": "Too many attempts in a short time. Wait a minute and try again." };
  return { "": refusal.message };
}

/** Shows the fault of a field beside it, or that it has none. */
function mark(field, fault = "") {
  const place = document.getElementById(field.id + "-error");
  place.textContent = fault;
  place.hidden = fault === "";
  if (fault) field.setAttribute("aria-invalid", "true");
  else field.removeAttribute("aria-invalid");
}

/** Shows all faults and takes the user to the first. */
function complain(form, found) {
  for (const field of form.querySelectorAll("input[id]")) mark(field, found[field.id]);
  form.querySelector(".summary").textContent = found[""] ?? "";
  const first = form.querySelector("[aria-invalid]");
  first?.focus();
  first?.select();
}

/** Takes away the faults that have been mended; what is half typed is not a new one. */
function mend(form, found) {
  for (const field of form.querySelectorAll("[aria-invalid]")) if (!found[field.id]) mark(field);
  form.querySelector(".summary").textContent = "";
}

/** Fills the form for the account and decides which parts of it this cluster needs. */
function furnish(page, kind, account) {
  const reset = kind === "reset";
  page.querySelector("[data-greeting]").textContent = reset ? "Hello" : "Welcome";
  page.querySelector("[data-user]").textContent = account.user;
  page.querySelector("[name=username]").value = account.user;
  page.querySelector("[data-submit]").textContent = reset ? "Set password" : "Create account";
  const device = Boolean(account.qrCode) && secondFactor !== "off";
  page.querySelector("[data-lead]").textContent = device
    ? `Two things give you access to ${cluster}: a password, and codes from an app on your phone or computer.`
    : `A password gives you access to ${cluster}.`;
  if (!device) {
    page.querySelector("[data-device]").remove();
    return;
  }
  page.querySelector("[data-qr]").src = "data:image/png;base64," + account.qrCode;
  if (account.secret) {
    page.querySelector("[data-manual]").hidden = false;
    page.querySelector("[data-key]").textContent = account.secret.match(/.{1,4}/g).join(" ");
  }
  if (secondFactor === "optional") {
    page.querySelector("[for=code]").append(" (if you use the app)");
    page.querySelector("#code").required = false;
  }
}

/** The page behind a link of `tctl users add` or `tctl users reset`. */
async function invite(kind, token) {
  const title = kind === "reset" ? "Set a new password" : "Create your account";
  show("loading", title);
  let account;
  try {
    account = await call("GET", "/users/password/token/" + encodeURIComponent(token));
  } catch (refusal) {
    if (refusal.status >= 400 && refusal.status < 500 && refusal.status !== 429) return void show("failed", "Link not valid");
    const page = show("trouble", title);
    page.querySelector("[data-reason]").textContent = faultsOf(refusal)[""] ?? refusal.message;
    page.querySelector("[data-again]").addEventListener("click", () => invite(kind, token));
    return;
  }
  const page = show("invite", title);
  furnish(page, kind, account);
  const form = page.querySelector("form");
  const values = () => Object.fromEntries(new FormData(form));
  const codeNeeded = form.querySelector("#code")?.required ?? false;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const found = faults(values(), codeNeeded);
    complain(form, found);
    if (Object.keys(found).length === 0) submit(form, token, account.user, values());
  });
  form.addEventListener("input", () => mend(form, faults(values(), codeNeeded)));
  form.querySelector("[data-reveal]").addEventListener("change", (event) => {
    for (const name of ["password", "repeat"]) form.elements[name].type = event.target.checked ? "text" : "password";
  });
  form.elements.password.focus({ preventScroll: true });
}

/** Sends the form; whatever is refused, what was typed stays. */
async function submit(form, token, user, { password, code }) {
  const button = form.querySelector("[data-submit]");
  if (button.getAttribute("aria-disabled") === "true") return;
  const label = button.textContent;
  // Not `disabled`: the button would lose the keyboard's focus.
  button.setAttribute("aria-disabled", "true");
  button.textContent = "One moment…";
  try {
    await call("PUT", "/users/password/token", {
      token, password: base64(password), second_factor_token: digits(code ?? ""), deviceName: "otp",
    });
    show("done", "You are set up", user);
  } catch (refusal) {
    if (/bad or expired token/i.test(refusal.message)) show("failed", "Link not valid", user);
    else complain(form, faultsOf(refusal));
  } finally {
    button.removeAttribute("aria-disabled");
    button.textContent = label;
  }
}

document.getElementById("cluster").textContent = cluster;
// Tokens are hexadecimal; anything else in their place is a mangled link.
const [, kind, token] = location.pathname.match(/^\/web\/(invite|reset)\/([\w.~-]*)/) ?? [];
if (kind && token) invite(kind, token);
else if (kind) show("failed", "Link not valid");
else show("front", "Log in");

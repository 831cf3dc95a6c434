// The pages of the front door: they show what the path asks for and speak to the web API beside them.
"use strict";

const csrf = document.querySelector("meta[name=csrf]").content;
const view = document.getElementById("view");
const config = globalThis.GRV_CONFIG ?? {};

/** Calls the web API; a refusal is thrown with the server's own words. */
async function call(method, path, body) {
  const response = await fetch("/v1/webapi" + path, {
    method,
    headers: { "Content-Type": "application/json", "X-CSRF-Token": csrf },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.error?.message ?? `the server answered ${response.status}`);
  return answer;
}

/** Replaces the view by a template and returns it. */
function show(id) {
  view.replaceChildren(document.getElementById(id).content.cloneNode(true));
  const command = view.querySelector("[data-command]");
  if (command) command.textContent = `tsh login --proxy=${location.host}`;
  return view;
}

const base64 = (text) => btoa(String.fromCharCode(...new TextEncoder().encode(text)));

async function invite(token) {
  let account;
  try {
    account = await call("GET", "/users/password/token/" + encodeURIComponent(token));
  } catch {
    show("failed");
    return;
  }
  const page = show("invite");
  document.title = "Create your account";
  page.querySelector("[data-user]").textContent = account.user;
  page.querySelector("[data-qr]").src = "data:image/png;base64," + account.qrCode;
  const form = page.querySelector("form");
  const error = form.querySelector(".error");
  const button = form.querySelector("button");
  const complain = (text) => { error.textContent = text; error.hidden = false; };
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    error.hidden = true;
    const { password, repeat, code } = Object.fromEntries(new FormData(form));
    if (password.length < 12) return complain("The password needs at least 12 characters.");
    if (password !== repeat) return complain("The passwords differ.");
    if (!/^[0-9]{6}$/.test(code)) return complain("Enter the six digits that the authenticator app shows.");
    button.disabled = true;
    try {
      await call("PUT", "/users/password/token", {
        token, password: base64(password), second_factor_token: code, deviceName: "otp",
      });
      document.title = "Account created";
      show("done");
    } catch (refusal) {
      complain(refusal.message);
    } finally {
      button.disabled = false;
    }
  });
}

document.getElementById("cluster").textContent = config.proxyCluster ?? location.hostname;
const [, kind, token] = location.pathname.match(/^\/web\/(invite|reset)\/([^/]+)/) ?? [];
if (kind) invite(decodeURIComponent(token));
else show("front");

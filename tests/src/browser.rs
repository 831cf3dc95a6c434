//! The part of a browser the sign-up page needs: pages, JSON calls, the cookie against forged requests, and
//! the eye that reads the QR code.

use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use ureq::http::{Request, Response};
use ureq::tls::TlsConfig;
use ureq::{Agent, Body};

/// Name of the cookie whose value a page sends back in a header.
const COOKIE: &str = "__Host-grv_csrf";
const HEADER: &str = "X-CSRF-Token";
const LIMIT: Duration = Duration::from_secs(20);

/// What a server answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status code of HTTP.
    pub status: u16,
    /// The body as text.
    pub body: String,
}

impl Answer {
    /// The body as JSON, of a request that succeeded.
    #[track_caller]
    pub fn json(&self) -> Value {
        assert!(self.status == 200, "expected success, got {} {}", self.status, self.body);
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("expected JSON ({e}): {}", self.body))
    }
}

/// A visitor of one site, who trusts whatever certificate it shows.
pub struct Browser {
    agent: Agent,
    site: String,
    token: Option<String>,
}

impl Browser {
    /// A visitor of `site`, such as `https://127.0.0.1:3080`.
    pub fn new(site: &str) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = TlsConfig::builder().disable_verification(true).unversioned_rustls_crypto_provider(provider).build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .proxy(None)
            .timeout_global(Some(LIMIT))
            .build();
        Self { agent: config.into(), site: site.to_owned(), token: None }
    }

    /// Opens a page; failing to get any answer is an error.
    pub fn try_get(&mut self, path: &str) -> Result<Answer, String> {
        let response = self.agent.get(format!("{}{path}", self.site)).call().map_err(|e| e.to_string())?;
        let cookies = response.headers().get_all("set-cookie").iter().filter_map(|c| c.to_str().ok());
        let mut values = cookies.filter_map(|c| c.strip_prefix(COOKIE)?.strip_prefix('=')?.split(';').next());
        if let Some(token) = values.next() {
            self.token = Some(token.to_owned());
        }
        answer(response)
    }

    /// Opens a page.
    #[track_caller]
    pub fn get(&mut self, path: &str) -> Answer {
        self.try_get(path).unwrap_or_else(|e| panic!("GET {path}: {e}"))
    }

    /// Sends JSON as a script on the last page would.
    #[track_caller]
    pub fn send(&self, method: &str, path: &str, body: &Value) -> Answer {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.site));
        request = request.header("Content-Type", "application/json");
        if let Some(token) = &self.token {
            request = request.header("Cookie", format!("{COOKIE}={token}")).header(HEADER, token);
        }
        let request = request.body(body.to_string()).expect("a well-formed request");
        let answered = self.agent.run(request).map_err(|e| e.to_string()).and_then(answer);
        answered.unwrap_or_else(|e| panic!("{method} {path}: {e}"))
    }

    /// Opens an invitation; the `otpauth` address in the QR code it shows.
    #[track_caller]
    pub fn open_invitation(&mut self, invitation: &str) -> String {
        let page = self.get(&format!("/web/invite/{invitation}"));
        assert!(page.status == 200 && page.body.contains("<html"), "sign-up page: {} {}", page.status, page.body);
        let path = format!("/v1/webapi/mfa/token/{invitation}/registerchallenge");
        let challenge = self.send("POST", &path, &json!({ "deviceType": "totp" })).json();
        read_qr(challenge["totp"]["qrCode"].as_str().expect("a QR code in the challenge"))
    }

    /// Sets the password of an invitation, proving the second factor with `code`.
    #[track_caller]
    pub fn accept_invitation(&self, invitation: &str, password: &str, code: &str) -> Answer {
        let body = json!({
            "token": invitation,
            "password": STANDARD.encode(password),
            "second_factor_token": code,
            "deviceName": "phone",
        });
        self.send("PUT", "/v1/webapi/users/password/token", &body)
    }
}

fn answer(mut response: Response<Body>) -> Result<Answer, String> {
    let status = response.status().as_u16();
    let body = response.body_mut().read_to_string().map_err(|e| e.to_string())?;
    Ok(Answer { status, body })
}

/// The text of the QR code in a PNG picture given as base64.
#[track_caller]
fn read_qr(picture: &str) -> String {
    let bytes = STANDARD.decode(picture).expect("a picture as base64");
    let mut decoder = png::Decoder::new(Cursor::new(bytes));
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().expect("a PNG picture");
    let mut pixels = vec![0; reader.output_buffer_size().expect("a picture that fits in memory")];
    let frame = reader.next_frame(&mut pixels).expect("a PNG picture");
    let (width, height) = (frame.width as usize, frame.height as usize);
    let (row, step) = (frame.line_size, frame.line_size / width);
    let mut grey = rqrr::PreparedImage::prepare_from_greyscale(width, height, |x, y| pixels[y * row + x * step]);
    let grids = grey.detect_grids();
    let grid = grids.first().expect("a QR code in the picture");
    grid.decode().expect("a readable QR code").1
}

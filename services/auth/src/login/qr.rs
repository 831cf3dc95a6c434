//! QR codes of one-time code secrets.

use qrcodegen::{QrCode, QrCodeEcc};
use wire::error::{Error, Result};

/// Width and height of the image, in pixels.
const SIZE: usize = 456;

/// White modules around the code that scanners need (ISO/IEC 18004).
const QUIET: usize = 4;

/// A text as a black-on-white PNG of 456 by 456 pixels.
///
/// # Errors
/// `BadParameter` for texts that are too long for the image.
pub(crate) fn png(text: &str) -> Result<Vec<u8>> {
    let code = QrCode::encode_text(text, QrCodeEcc::Medium)
        .map_err(|_| Error::bad_parameter("the text is too long for a QR code"))?;
    let modules = usize::try_from(code.size()).unwrap_or(0);
    let scale = SIZE / (modules + 2 * QUIET);
    if scale == 0 {
        return Err(Error::bad_parameter("the text is too long for a QR code"));
    }
    let margin = (SIZE - modules * scale) / 2;
    let mut pixels = vec![0xFF_u8; SIZE * SIZE];
    for (index, pixel) in pixels.iter_mut().enumerate() {
        let module = |offset: usize| offset.checked_sub(margin).map(|inside| inside / scale).filter(|m| *m < modules);
        let (Some(x), Some(y)) = (module(index % SIZE), module(index / SIZE)) else { continue };
        let position = |m: usize| i32::try_from(m).unwrap_or(-1);
        if code.get_module(position(x), position(y)) {
            *pixel = 0;
        }
    }
    encode(&pixels).map_err(|e| Error::other(format!("QR code: {e}")))
}

fn encode(pixels: &[u8]) -> Result<Vec<u8>, png::EncodingError> {
    let side = u32::try_from(SIZE).unwrap_or(0);
    let mut image = Vec::new();
    let mut encoder = png::Encoder::new(&mut image, side, side);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    writer.finish()?;
    Ok(image)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_image_has_the_promised_size_and_a_white_frame() {
        let image = png("otpauth://totp/example.com:alice@proxy?secret=ABCDEFGHIJKLMNOP&issuer=example.com").unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(image)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((info.width, info.height), (456, 456));
        assert!(pixels[..456 * 16].iter().all(|p| *p == 0xFF));
        assert!(pixels.contains(&0));
    }

    #[test]
    fn a_text_beyond_any_code_is_refused() {
        assert!(png(&"x".repeat(5000)).is_err());
    }
}

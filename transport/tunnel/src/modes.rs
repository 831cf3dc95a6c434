//! Modes of terminals, as clients send them with a request for one (RFC 4254 §8).
//!
//! What a key does is known to the terminal that the user sits at; a program on the host should see the same.

use std::os::fd::AsFd;

use nix::sys::termios::{
    InputFlags, LocalFlags, OutputFlags, SetArg, SpecialCharacterIndices as Key, Termios, tcgetattr, tcsetattr,
};
use russh::Pty;

/// A key that does nothing, on the wire; here it is 0.
const NO_KEY: u32 = 255;

const KEYS: &[(Pty, Key)] = &[
    (Pty::VINTR, Key::VINTR),
    (Pty::VQUIT, Key::VQUIT),
    (Pty::VERASE, Key::VERASE),
    (Pty::VKILL, Key::VKILL),
    (Pty::VEOF, Key::VEOF),
    (Pty::VEOL, Key::VEOL),
    (Pty::VEOL2, Key::VEOL2),
    (Pty::VSTART, Key::VSTART),
    (Pty::VSTOP, Key::VSTOP),
    (Pty::VSUSP, Key::VSUSP),
    (Pty::VREPRINT, Key::VREPRINT),
    (Pty::VWERASE, Key::VWERASE),
    (Pty::VLNEXT, Key::VLNEXT),
    (Pty::VDISCARD, Key::VDISCARD),
];

const INPUT: &[(Pty, InputFlags)] = &[
    (Pty::IGNPAR, InputFlags::IGNPAR),
    (Pty::PARMRK, InputFlags::PARMRK),
    (Pty::INPCK, InputFlags::INPCK),
    (Pty::ISTRIP, InputFlags::ISTRIP),
    (Pty::INLCR, InputFlags::INLCR),
    (Pty::IGNCR, InputFlags::IGNCR),
    (Pty::ICRNL, InputFlags::ICRNL),
    (Pty::IXON, InputFlags::IXON),
    (Pty::IXANY, InputFlags::IXANY),
    (Pty::IXOFF, InputFlags::IXOFF),
    (Pty::IMAXBEL, InputFlags::IMAXBEL),
    (Pty::IUTF8, InputFlags::IUTF8),
];

const LOCAL: &[(Pty, LocalFlags)] = &[
    (Pty::ISIG, LocalFlags::ISIG),
    (Pty::ICANON, LocalFlags::ICANON),
    (Pty::ECHO, LocalFlags::ECHO),
    (Pty::ECHOE, LocalFlags::ECHOE),
    (Pty::ECHOK, LocalFlags::ECHOK),
    (Pty::ECHONL, LocalFlags::ECHONL),
    (Pty::NOFLSH, LocalFlags::NOFLSH),
    (Pty::TOSTOP, LocalFlags::TOSTOP),
    (Pty::IEXTEN, LocalFlags::IEXTEN),
    (Pty::ECHOCTL, LocalFlags::ECHOCTL),
    (Pty::ECHOKE, LocalFlags::ECHOKE),
    (Pty::PENDIN, LocalFlags::PENDIN),
];

const OUTPUT: &[(Pty, OutputFlags)] = &[
    (Pty::OPOST, OutputFlags::OPOST),
    (Pty::ONLCR, OutputFlags::ONLCR),
    (Pty::OCRNL, OutputFlags::OCRNL),
    (Pty::ONOCR, OutputFlags::ONOCR),
    (Pty::ONLRET, OutputFlags::ONLRET),
];

/// The modes of a terminal; none when it is no terminal.
pub fn of(terminal: impl AsFd) -> Vec<(Pty, u32)> {
    let Ok(settings) = tcgetattr(terminal) else { return Vec::new() };
    let key = |key: Key| match settings.control_chars.get(key as usize) {
        None | Some(0) => NO_KEY,
        Some(key) => u32::from(*key),
    };
    let keys = KEYS.iter().map(|(mode, index)| (*mode, key(*index)));
    let input = INPUT.iter().map(|(mode, flag)| (*mode, settings.input_flags.contains(*flag).into()));
    let local = LOCAL.iter().map(|(mode, flag)| (*mode, settings.local_flags.contains(*flag).into()));
    let output = OUTPUT.iter().map(|(mode, flag)| (*mode, settings.output_flags.contains(*flag).into()));
    keys.chain(input).chain(local).chain(output).collect()
}

/// Sets modes of a terminal; those it does not know, and those that were not named, stay as they are.
///
/// # Errors
/// When it is no terminal.
pub fn apply(terminal: impl AsFd, modes: &[(Pty, u32)]) -> nix::Result<()> {
    let mut settings = tcgetattr(&terminal)?;
    for (mode, value) in modes {
        set(&mut settings, *mode, *value);
    }
    tcsetattr(terminal, SetArg::TCSANOW, &settings)
}

fn set(settings: &mut Termios, mode: Pty, value: u32) {
    let on = value != 0;
    if let Some((_, index)) = KEYS.iter().find(|(known, _)| *known == mode) {
        let value = if value == NO_KEY { 0 } else { u8::try_from(value).unwrap_or_default() };
        if let Some(key) = settings.control_chars.get_mut(*index as usize) {
            *key = value;
        }
    } else if let Some((_, flag)) = INPUT.iter().find(|(known, _)| *known == mode) {
        settings.input_flags.set(*flag, on);
    } else if let Some((_, flag)) = LOCAL.iter().find(|(known, _)| *known == mode) {
        settings.local_flags.set(*flag, on);
    } else if let Some((_, flag)) = OUTPUT.iter().find(|(known, _)| *known == mode) {
        settings.output_flags.set(*flag, on);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use nix::pty::openpty;

    use super::*;

    #[test]
    fn a_terminal_takes_the_modes_of_another() {
        let (near, far) = (openpty(None, None).unwrap(), openpty(None, None).unwrap());
        let changes = [
            (Pty::ECHO, 0),
            (Pty::IUTF8, 1),
            (Pty::VINTR, 7),
            (Pty::VERASE, 8),
            (Pty::VSUSP, NO_KEY),
            (Pty::ONLCR, 0),
            (Pty::TTY_OP_ISPEED, 9600),
            (Pty::CS8, 1),
        ];
        let before = of(&far.slave);
        apply(&near.slave, &changes).unwrap();
        assert_ne!(of(&near.slave), before);
        apply(&far.slave, &of(&near.slave)).unwrap();
        assert_eq!(of(&far.slave), of(&near.slave));
        for (mode, value) in &changes[..6] {
            assert!(of(&far.slave).contains(&(*mode, *value)), "{mode:?}");
        }
        let none = std::fs::File::open("/dev/null").unwrap();
        assert!(of(&none).is_empty() && apply(&none, &changes).is_err());
    }
}

//! Playing a recording: what to show when, and recordings as text.

mod export;
mod timeline;

pub use export::{Export, ExportFormat};
pub use timeline::{Frame, IDLE_GAP, Pace, Shown, Speed, Timeline};

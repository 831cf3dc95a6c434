//! The short way to say what a kind adds to [`Resource`](crate::Resource).

/// One row a kind: its type, name, version, where its name stands (`plain_header` or `embedded_header`), its place,
/// what fills its blanks and what is refused. The version is always checked.
macro_rules! kinds {
    ($(
        $type:ty: $kind:path, $version:literal, $header:ident $(, once $name:literal)? {
            place: $place:expr,
            defaults: $defaults:expr,
            check: $check:expr,
        }
    )*) => { $(
        impl $crate::Resource for $type {
            const KIND: &'static str = $kind;
            const VERSION: &'static str = $version;
            $(const SINGLETON: Option<&'static str> = Some($name);)?
            $crate::resource::$header!();

            fn place(&self) -> $crate::Place {
                let place: fn(&Self) -> $crate::Place = $place;
                place(self)
            }

            fn set_spec_defaults(&mut self) {
                let fill: fn(&mut Self) = $defaults;
                fill(self);
            }

            fn check_spec(&self) -> $crate::Result<()> {
                $crate::resource::check_version(self)?;
                let check: fn(&Self) -> $crate::Result<()> = $check;
                check(self)
            }
        }
    )* };
}
pub(crate) use kinds;

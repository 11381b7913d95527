//! What a request that is sent may leave on its backend, noted before it is sent: as far as a text tells it.

use super::{held::Held, request::Request};
use crate::sql::{Effects, added_names, setting_names};

/// Names of what is added are kept of one transaction; of more, it is not known what was.
const ADDED_MAX: usize = 100;

/// Bytes of texts that call what is not known, which are kept; of more it is not known what they set.
const UNSURE_BYTES: usize = 64 * 1024;

/// Names of settings longer than this are not carried.
const NAME_BYTES_MAX: usize = 200;

impl Held<'_> {
    /// Remembers what a request adds, until its transaction has ended: nobody else sees it before.
    pub(super) fn note_added(&mut self, request: Request) {
        let names = self.judge().texts(request).iter().flat_map(|text| added_names(text)).collect::<Vec<_>>();
        let left = &mut self.leased.left;
        let added = &mut left.noted().added;
        added.extend(names);
        if added.len() > ADDED_MAX {
            *added = Vec::new();
            left.effects |= Effects::DDL;
        }
    }

    /// Remembers the names with a dot that a request may set: the server lists no settings that it does not know.
    /// A name that is itself a bound value is among the request's values.
    pub(super) fn note_custom_settings(&mut self, request: Request) {
        let mut names: Vec<String> =
            self.judge().texts(request).iter().flat_map(|text| setting_names(text)).collect();
        let mut has_odd = false;
        self.judge().for_each_bound_value(request, |value| match bound_name(value) {
            BoundName::None => {}
            BoundName::Carried(name) => names.push(name),
            BoundName::Odd => has_odd = true,
        });
        if has_odd {
            // It would be lost with the backend, and is nobody else's.
            self.leased.left.effects |= Effects::UNPROVEN;
        }
        for name in names {
            if !self.own.note_custom_setting(&name) {
                self.leased.left.effects |= Effects::OPAQUE_SETTINGS;
            }
        }
    }

    /// Remembers texts that call what the catalog snapshot does not know, until the server is asked what it does.
    pub(super) fn note_unsure(&mut self, request: Request) {
        let texts = self.judge().texts(request).concat();
        let left = &mut self.leased.left;
        left.noted().unsure.extend_from_slice(&texts);
        if left.unsure().len() > UNSURE_BYTES {
            left.effects |= Effects::OPAQUE_SETTINGS;
            left.forget_unsure();
        }
    }
}

/// A bound value, should it be the name of a setting.
enum BoundName {
    /// One that the server lists, or none at all.
    None,
    /// One with a dot, which is asked for by this name.
    Carried(String),
    /// One with a dot that is long, or has other characters than ASCII.
    Odd,
}

/// Names with a dot have letters, digits, `_` and `$` (`valid_custom_variable_name` in PostgreSQL's guc.c).
fn bound_name(value: &[u8]) -> BoundName {
    let fits =
        |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'$') || *byte >= 0x80;
    if !value.contains(&b'.') || !value.iter().all(fits) {
        return BoundName::None;
    }
    std::str::from_utf8(value)
        .ok()
        .filter(|name| name.is_ascii() && name.len() <= NAME_BYTES_MAX)
        .map_or(BoundName::Odd, |name| BoundName::Carried(name.to_owned()))
}

//! What a request that is sent may leave on its backend, noted before it is sent: as far as a text tells it.

use super::{Session, hold::Leased, request::Request};
use crate::sql::{Effects, added_names, setting_names};

/// Names of what is added are kept of one transaction; of more, it is not known what was.
const ADDED_MAX: usize = 100;

/// Names of custom settings that are kept of one session; more than these cannot be carried.
const CUSTOM_SETTINGS_MAX: usize = 100;

/// Bytes of texts that call what is not known, which are kept; of more it is not known what they set.
const UNSURE_BYTES: usize = 64 * 1024;

/// Names of settings longer than this are not carried.
const NAME_BYTES_MAX: usize = 200;

impl Session {
    /// A request may leave these on the backend.
    pub(crate) fn note(&mut self, effects: Effects) {
        if let Some(leased) = &mut self.hold.leased {
            leased.left.effects |= effects;
        }
    }

    /// Remembers what a request adds, until its transaction has ended: nobody else sees it before.
    pub(crate) fn note_added(&mut self, request: Request) {
        let names = self.judge().texts(request).iter().flat_map(|text| added_names(text)).collect::<Vec<_>>();
        let Some(leased) = &mut self.hold.leased else { return };
        let added = &mut leased.left.noted().added;
        added.extend(names);
        if added.len() > ADDED_MAX {
            *added = Vec::new();
            leased.left.effects |= Effects::DDL;
        }
    }

    /// Remembers the names with a dot that a request may set: the server lists no settings that it does not know.
    /// A name that is itself a bound value is among the request's values.
    pub(crate) fn note_custom_settings(&mut self, request: Request) {
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
            self.note(Effects::UNPROVEN);
        }
        for name in names {
            self.note_custom_setting(&name);
        }
    }

    pub(super) fn note_custom_setting(&mut self, name: &str) {
        if !name.contains('.') || self.own.custom_settings().iter().any(|known| known == name) {
            return;
        }
        if self.own.custom_settings().len() < CUSTOM_SETTINGS_MAX {
            self.own.custom_settings.get_or_insert_default().push(name.to_owned());
        } else {
            self.note(Effects::OPAQUE_SETTINGS);
        }
    }

    /// Remembers texts that call what the catalog snapshot does not know, until the server is asked what it does.
    pub(crate) fn note_unsure(&mut self, request: Request) {
        let texts = self.judge().texts(request).concat();
        let Some(Leased { left, .. }) = &mut self.hold.leased else { return };
        left.noted().unsure.extend_from_slice(&texts);
        if left.unsure().len() > UNSURE_BYTES {
            left.effects |= Effects::OPAQUE_SETTINGS;
            left.forget_unsure();
        }
    }
}

/// What a bound value is, should it be the name of a setting.
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

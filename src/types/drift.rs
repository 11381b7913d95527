//! How the types of two servers differ where they should be the same.

use std::collections::HashMap;

use super::known::{Kind, Known, Type};

/// A line for each type of the job database that is not the same on the primary, in the order of their names. Types of
/// tables' rows and of arrays come with what they are of.
pub fn drift(jobs: &Known, primary: &Known) -> Vec<String> {
    let named: HashMap<(&str, &str), &Type> =
        primary.types.values().map(|found| ((&*found.schema, &*found.name), found)).collect();
    let same = |found: &Type| named.get(&(&*found.schema, &*found.name)).copied();
    let mut lines: Vec<String> = jobs.types.values().filter_map(|found| line(found, same(found))).collect();
    lines.sort();
    lines
}

fn line(found: &Type, same: Option<&Type>) -> Option<String> {
    if matches!(found.kind, Kind::Row | Kind::Array(_) | Kind::Multirange(_)) {
        return None;
    }
    let name = found.quoted();
    let Some(same) = same else { return Some(format!("type {name} is missing on the primary")) };
    let (is, was) = (sort(found.kind), sort(same.kind));
    if is != was {
        return Some(format!("type {name} is {is}, and {was} on the primary"));
    }
    let what = match found.kind {
        Kind::Enum => "labels",
        Kind::Composite => "attributes",
        _ => return None,
    };
    (found.detail != same.detail)
        .then(|| format!("type {name} has the {what} {}, and {} on the primary", found.detail, same.detail))
}

const fn sort(kind: Kind) -> &'static str {
    match kind {
        Kind::Base => "a base type",
        Kind::Enum => "an enum",
        Kind::Domain(_) => "a domain",
        Kind::Composite => "a composite type",
        Kind::Row => "the type of a table's rows",
        Kind::Range(_) => "a range",
        Kind::Multirange(_) => "a multirange",
        Kind::Array(_) => "an array",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::known::tests::known;

    #[test]
    fn what_differs_is_listed() {
        let (there, here) = (known(20_000), known(30_000));
        assert_eq!(drift(&there, &here), Vec::<String>::new());
        let mut here = here;
        here.types.get_mut(&30_000).expect("the enum").detail = "'b', 'a'".to_owned();
        here.types.get_mut(&30_002).expect("the pair").detail = "s public.state".to_owned();
        here.types.get_mut(&30_005).expect("the domain").kind = Kind::Enum;
        here.types.remove(&30_006);
        // A table of the job database is no matter of types.
        here.types.remove(&30_008);
        assert_eq!(
            drift(&there, &here),
            [
                "type public.pair has the attributes s public.state, n integer, and s public.state on the primary",
                "type public.pairs is missing on the primary",
                "type public.state has the labels 'a', 'b', and 'b', 'a' on the primary",
                "type public.states is a domain, and an enum on the primary",
            ]
        );
    }
}

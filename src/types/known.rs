//! The types that one server has, as its catalog tells.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::FIRST_USER_NUMBER;

/// The question for all types of a database that do not come with PostgreSQL: number, schema, name, kind, element of
/// an array, base of a domain, subtype of a range, its multirange, relation, whether that is a table, and the labels
/// of an enum, the attributes of a composite type or the columns of a table.
pub const QUERY: &str = "\
SELECT t.oid, n.nspname, t.typname, t.typtype, e.oid, t.typbasetype, r.rngsubtype, \
 pg_catalog.to_jsonb(r) OPERATOR(pg_catalog.->>) 'rngmultitypid'::pg_catalog.text, t.typrelid, \
 c.relkind OPERATOR(pg_catalog.<>) 'c'::pg_catalog.\"char\", \
 CASE WHEN t.typtype OPERATOR(pg_catalog.=) 'e'::pg_catalog.\"char\" THEN \
  (SELECT pg_catalog.string_agg(pg_catalog.quote_literal(l.enumlabel::pg_catalog.text), ', '::pg_catalog.text \
   ORDER BY l.enumsortorder) FROM pg_catalog.pg_enum l WHERE l.enumtypid OPERATOR(pg_catalog.=) t.oid) \
 WHEN c.relkind OPERATOR(pg_catalog.=) 'c'::pg_catalog.\"char\" THEN \
  (SELECT pg_catalog.string_agg(pg_catalog.concat(a.attname, ' ', \
   pg_catalog.format_type(a.atttypid, a.atttypmod)), ', '::pg_catalog.text ORDER BY a.attnum) \
   FROM pg_catalog.pg_attribute a WHERE a.attrelid OPERATOR(pg_catalog.=) t.typrelid \
   AND a.attnum OPERATOR(pg_catalog.>) 0::pg_catalog.int2 AND NOT a.attisdropped) \
 WHEN c.oid IS NOT NULL THEN \
  (SELECT pg_catalog.hashtextextended(pg_catalog.string_agg(pg_catalog.concat(a.attnum, ' ', a.attname), \
   ','::pg_catalog.text ORDER BY a.attnum), 0::pg_catalog.int8)::pg_catalog.text \
   FROM pg_catalog.pg_attribute a WHERE a.attrelid OPERATOR(pg_catalog.=) t.typrelid \
   AND a.attnum OPERATOR(pg_catalog.>) 0::pg_catalog.int2 AND NOT a.attisdropped) \
 END \
FROM pg_catalog.pg_type t \
JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) t.typnamespace \
LEFT JOIN pg_catalog.pg_type e ON e.oid OPERATOR(pg_catalog.=) t.typelem AND e.typarray OPERATOR(pg_catalog.=) t.oid \
LEFT JOIN pg_catalog.pg_range r ON r.rngtypid OPERATOR(pg_catalog.=) t.oid \
LEFT JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) t.typrelid \
WHERE t.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid";

/// The sort of a type: two that are not of the same sort are not the same, whatever they are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A type of its own, such as an extension's.
    Base,
    /// An enum.
    Enum,
    /// A domain over the type of this number.
    Domain(u32),
    /// A composite type.
    Composite,
    /// The type of a table's rows.
    Row,
    /// A range over the type of this number.
    Range(u32),
    /// The multirange of the range of this number.
    Multirange(u32),
    /// The array of the type of this number.
    Array(u32),
}

/// A type of one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Type {
    pub(super) schema: String,
    pub(super) name: String,
    pub(super) kind: Kind,
    /// The number of its relation, if it has one; otherwise 0.
    pub(super) relation: u32,
    /// The labels of an enum, the attributes of a composite type; of a table, a hash of its columns.
    pub(super) detail: String,
}

/// All types of one database that do not come with PostgreSQL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// By their numbers.
    pub(super) types: HashMap<u32, Type, RandomState>,
}

impl Known {
    /// Takes in the rows of [`QUERY`]'s answer. Types of one session's own are left out, and rows that make no sense.
    pub fn from_rows(rows: Vec<Vec<Option<String>>>) -> Self {
        let mut known = Self::default();
        let mut multiranges = Vec::new();
        for row in rows {
            let text = |at: usize| row.get(at).and_then(Option::as_deref).unwrap_or_default();
            let number = |at: usize| text(at).parse::<u32>().unwrap_or(0);
            let (own, schema) = (number(0), text(1));
            if own < FIRST_USER_NUMBER || schema.starts_with("pg_temp") || schema.starts_with("pg_toast") {
                continue;
            }
            let kind = match text(3) {
                _ if number(4) != 0 => Kind::Array(number(4)),
                "e" => Kind::Enum,
                "d" => Kind::Domain(number(5)),
                "c" if text(9) == "t" => Kind::Row,
                "c" => Kind::Composite,
                "r" => Kind::Range(number(6)),
                // Whose it is, its range says.
                "m" => Kind::Multirange(0),
                _ => Kind::Base,
            };
            if number(7) != 0 {
                multiranges.push((number(7), own));
            }
            let found = Type {
                schema: schema.to_owned(),
                name: text(2).to_owned(),
                kind,
                relation: number(8),
                detail: text(10).to_owned(),
            };
            known.types.insert(own, found);
        }
        for (multirange, range) in multiranges {
            if let Some(found) = known.types.get_mut(&multirange) {
                found.kind = Kind::Multirange(range);
            }
        }
        known
    }

    /// The name by which a type is the same one on another server. Arrays and multiranges go by what they are of: their
    /// own names may differ.
    pub(super) fn key(&self, number: u32) -> Option<String> {
        let Some(found) = self.types.get(&number) else {
            // PostgreSQL's own.
            return (number > 0 && number < FIRST_USER_NUMBER).then(|| number.to_string());
        };
        Some(match found.kind {
            // An array may be of multiranges, a multirange of ranges only.
            Kind::Array(element) if !self.is(element, |kind| matches!(kind, Kind::Array(_))) => {
                format!("array {}", self.key(element)?)
            }
            Kind::Multirange(range) if self.is(range, |kind| matches!(kind, Kind::Range(_))) => {
                format!("multirange {}", self.key(range)?)
            }
            Kind::Array(_) | Kind::Multirange(_) => return None,
            Kind::Base => format!("base {}", found.quoted()),
            Kind::Enum => format!("enum {}", found.quoted()),
            Kind::Domain(_) => format!("domain {}", found.quoted()),
            // Whether a table has a type of the same name is the table's business.
            Kind::Composite | Kind::Row => format!("row {}", found.quoted()),
            Kind::Range(_) => format!("range {}", found.quoted()),
        })
    }

    fn is(&self, number: u32, of_kind: impl Fn(Kind) -> bool) -> bool {
        self.types.get(&number).is_some_and(|found| of_kind(found.kind))
    }

    /// The name of a type as SQL has it.
    pub(super) fn name(&self, number: u32) -> String {
        match self.types.get(&number) {
            Some(Type { kind: Kind::Array(element), .. }) if self.types.contains_key(element) => {
                format!("{}[]", self.types[element].quoted())
            }
            Some(found) => found.quoted(),
            None => format!("number {number}"),
        }
    }
}

impl Type {
    /// The schema and the name, in quotes where they need them.
    pub(super) fn quoted(&self) -> String {
        let quoted = |name: &str| {
            let is_plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
                && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            if is_plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
        };
        format!("{}.{}", quoted(&self.schema), quoted(&self.name))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A row of the answer.
    pub(in crate::types) fn row(columns: [&str; 11]) -> Vec<Option<String>> {
        columns.map(|text| (!text.is_empty()).then(|| text.to_owned())).to_vec()
    }

    /// Types of all kinds, the first of which has this number.
    pub(in crate::types) fn known(first: u32) -> Known {
        let n = |offset: u32| (first + offset).to_string();
        let none = "";
        let rows = vec![
            row([&n(0), "public", "state", "e", none, "0", none, none, "0", none, "'a', 'b'"]),
            row([&n(1), "public", "_state", "b", &n(0), "0", none, none, "0", none, none]),
            row([
                &n(2),
                "public",
                "pair",
                "c",
                none,
                "0",
                none,
                none,
                &n(3),
                "f",
                "s public.state, n integer",
            ]),
            row([&n(4), "public", "_pair", "b", &n(2), "0", none, none, "0", none, none]),
            row([&n(5), "public", "states", "d", none, &n(1), none, none, "0", none, none]),
            row([&n(6), "public", "pairs", "r", none, "0", &n(2), &n(7), "0", none, none]),
            row([&n(7), "public", "pairs_multi", "m", none, "0", none, none, "0", none, none]),
            row([&n(8), "public", "oban_jobs", "c", none, "0", none, none, &n(9), "t", "77"]),
            row([&n(10), "My", "Citext", "b", none, "0", none, none, "0", none, none]),
            row([&n(11), "pg_temp_3", "own", "c", none, "0", none, none, &n(12), "t", "78"]),
        ];
        Known::from_rows(rows)
    }

    #[test]
    fn types_are_the_same_by_their_names_and_kinds() {
        let (one, two) = (known(20_000), known(30_000));
        for offset in [0, 1, 2, 4, 5, 6, 7, 8, 10] {
            let key = one.key(20_000 + offset).expect("it is known");
            assert_eq!(Some(&key), two.key(30_000 + offset).as_ref());
        }
        assert_eq!(one.key(20_001).as_deref(), Some("array enum public.state"));
        assert_eq!(one.key(20_007).as_deref(), Some("multirange range public.pairs"));
        assert_eq!(one.key(20_010).as_deref(), Some("base \"My\".\"Citext\""));
        assert_eq!((one.key(20_011), one.key(25_000)), (None, None), "a session's own, and none at all");
        assert_eq!(one.name(20_001), "public.state[]");
    }
}

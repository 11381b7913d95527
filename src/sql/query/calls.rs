//! Functions that a query calls: what the catalog and the list of built-in ones say of them.

use pg_raw_parse::{Node, nodes};

use super::{Walk, is_listed, is_true};
use crate::sql::{
    catalog::Function,
    functions::{self, Known},
    parse::qualified,
    rules::Object,
    verdict::{Effects, Reason},
};

/// Functions of PostgreSQL's that libraries add jobs with: while no catalog is known, these write nothing.
const PLAIN_FUNCTIONS: [&str; 30] = [
    "array_agg",
    "array_length",
    "concat",
    "count",
    "date_part",
    "date_trunc",
    "extract",
    "floor",
    "gen_random_uuid",
    "hashtext",
    "json_agg",
    "json_array_elements_text",
    "json_build_object",
    "json_populate_recordset",
    "json_to_recordset",
    "jsonb_build_object",
    "jsonb_populate_recordset",
    "jsonb_to_recordset",
    "left",
    "length",
    "lower",
    "make_interval",
    "md5",
    "now",
    "right",
    "round",
    "timezone",
    "to_jsonb",
    "to_timestamp",
    "unnest",
];

impl<'p> Walk<'p, '_> {
    pub(super) fn call(&mut self, call: &'p nodes::FuncCall) {
        let (schema, name) = qualified(call.funcname().iter());
        self.prove_call(call, name);
        let job = self.rules.object(Object::Function, schema, name);
        if let Some(seen) = self.seen.as_deref_mut() {
            seen.function(schema, name, job);
        }
        if job {
            self.found.is_job(Reason::JobObject);
            self.found.writes(Reason::Function);
            let enqueues = self.rules.is_enqueue(schema, name);
            self.found.adds |= enqueues;
            self.found.belongs_to_jobs |= !enqueues;
            self.found.defines |= self.rules.is_definition(schema, name);
            return;
        }
        // A function of users may have the name of one that is known.
        let elsewhere = schema.is_some_and(|schema| schema != "pg_catalog");
        let is_own = schema != Some("pg_catalog")
            && self.catalog.function(name).is_some_and(Function::is_own)
            || elsewhere && self.catalog.is_empty();
        let known = functions::known(name);
        if is_own && known.is_some() {
            self.catalogued(name);
        }
        if known.is_none() && functions::names_objects(name) || functions::is_sequence_call(name) {
            for argument in call.args() {
                self.names_object(argument);
            }
        }
        match known {
            Some(Known::Harmless) => {}
            Some(Known::Neutral(effects)) => {
                self.found.neutral_call = true;
                self.found.effects |= effects;
            }
            Some(Known::SetConfig) => self.set_config(call),
            Some(Known::Notify) => self.notify(call),
            Some(Known::Statistics) => self.found.writes(Reason::Catalog),
            Some(Known::Denied(effects)) => {
                self.found.effects |= effects;
                self.found.may_write |= name != "nextval";
                self.found.writes(Reason::Function);
            }
            None => self.catalogued(name),
        }
    }

    fn catalogued(&mut self, name: &str) {
        self.found.may_write |= match self.catalog.function(name) {
            Some(function) => function.is_opaque() || function.sets(),
            None => !(self.catalog.is_empty() && PLAIN_FUNCTIONS.contains(&name)),
        };
        if self.catalog.is_empty() {
            // It may be anybody's function, and do anything.
            self.found.effects |= Effects::OPAQUE.with(Effects::UNSURE);
            return self.found.writes(Reason::CatalogMissing);
        }
        let Some(function) = self.catalog.function(name) else {
            // Perhaps created since the snapshot: it may do anything.
            self.found.effects |= Effects::OPAQUE.with(Effects::UNSURE);
            return self.found.writes(Reason::Function);
        };
        if function.is_opaque() || function.sets() {
            self.found.effects |= Effects::OPAQUE;
        }
        if function.sets_hidden() {
            self.found.effects |= Effects::OPAQUE_SETTINGS;
        }
        if function.keeps() {
            self.found.effects |= Effects::LOADS;
        }
        if function.is_volatile() || function.sets() {
            self.found.writes(Reason::Function);
        }
    }

    /// The procedure of a CALL, which has been walked as a function's call: it may do anything, whatever it is declared
    /// to be, and its arguments do not say what it sets.
    pub(in crate::sql) fn procedure(&mut self, call: &'p nodes::FuncCall) {
        let (_, name) = qualified(call.funcname().iter());
        let settings = match self.catalog.function(name) {
            None => Effects::UNSURE,
            Some(function) if function.sets_hidden() => Effects::OPAQUE_SETTINGS,
            Some(_) => Effects::NONE,
        };
        self.found.effects |= Effects::OPAQUE.with(settings);
        self.found.writes(Reason::Function);
    }

    fn set_config(&mut self, call: &'p nodes::FuncCall) {
        self.found.neutral_call = true;
        let named = call.args().get(0).and_then(|name| self.literal(name));
        if named.is_some_and(|name| name.eq_ignore_ascii_case("seed")) {
            self.found.effects |= Effects::SEEDS;
        }
        if call.args().get(2).is_some_and(is_true) {
            self.found.effects |= Effects::LOCAL;
            return;
        }
        self.found.effects |= Effects::SETS;
        let name = call.args().get(0);
        let literal = name.and_then(|name| self.literal(name));
        if !literal.is_some_and(is_listed) {
            self.found.effects |= Effects::SETS_UNLISTED;
        }
        // A literal is in the text and a parameter among the values; a computed name is nowhere.
        match name {
            _ if literal.is_some() => {}
            Some(Node::ParamRef(_)) => {}
            Some(Node::ColumnRef(column)) if qualified(column.fields().iter()).1 == "name" => {
                self.found.name_of_column = true;
            }
            _ => self.found.effects |= Effects::OPAQUE_SETTINGS,
        }
    }

    fn notify(&mut self, call: &'p nodes::FuncCall) {
        self.found.effects |= Effects::NOTIFIES;
        self.found.writes(Reason::Function);
        let Some(channel) = call.args().get(0) else {
            return;
        };
        match self.literal(channel) {
            Some(channel) if self.rules.channel(channel) => {
                self.found.is_job(Reason::JobChannel);
                self.found.belongs_to_jobs |= !self.rules.wakes(channel);
            }
            Some(_) => {}
            // A parameter, or computed, perhaps from one.
            None => self.found.parameter_decides = true,
        }
    }
}

//! What ClickHouse itself says: the aggregates while the demo runs, and the proof at its end.
//!
//! Owns the questions and their comparison with what was produced. Writes to what it is given.

use super::generator::GroundTruth;
use super::scenarios::{Claim, Expects, ResultTable};
use super::table::grouped;
use crate::error::{Error, Result};
use clickhouse::Client;
use std::io::Write;

/// What ClickHouse says about the result, beside what went in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proof {
    pub result: ResultTable,
    pub truth: GroundTruth,
    pub rows: u64,
    pub distinct_keys: u64,
    pub cents: u64,
    /// The answers to the claims, in their order.
    pub claims: Vec<u64>,
}

impl Proof {
    /// Asks for `count()`, `uniqExact(key)` and `sum(amount)`, and for each claim.
    pub async fn ask(client: &Client, result: ResultTable, truth: GroundTruth) -> Result<Proof> {
        let failed =
            |error| Error::stop("demo_proof", format!("cannot ask ClickHouse about {}: {error}", result.table));
        let query = client
            .query(
                "SELECT count(), uniqExact({key:Identifier}), toUInt64(sum({amount:Identifier}) * 100) \
                 FROM {table:Identifier}",
            )
            .param("key", result.key)
            .param("amount", result.amount)
            .param("table", result.table);
        let (rows, distinct_keys, cents) = query.fetch_one::<(u64, u64, u64)>().await.map_err(failed)?;
        let mut claims = Vec::with_capacity(result.claims.len());
        for claim in result.claims {
            claims.push(client.query(claim.query).fetch_one::<u64>().await.map_err(failed)?);
        }
        Ok(Proof { result, truth, rows, distinct_keys, cents, claims })
    }

    /// Every key that went in is there, once, with its amount, and every claim is true.
    pub fn holds(&self) -> bool {
        let truth = &self.truth;
        let is_there =
            (self.rows, self.distinct_keys, self.cents) == (truth.distinct_keys, truth.distinct_keys, truth.cents);
        is_there
            && self.result.claims.iter().zip(&self.claims).all(|(claim, answer)| self.is_true(claim.expects, *answer))
    }

    fn is_true(&self, expects: Expects, answer: u64) -> bool {
        match expects {
            Expects::DistinctKeys => answer == self.truth.distinct_keys,
            Expects::Cents => answer == self.truth.cents,
            Expects::ShareAtLeast(least) => answer >= least || self.rows == 0,
        }
    }

    pub fn show(&self, out: &mut impl Write) -> std::io::Result<()> {
        let Proof { result: ResultTable { table, key, amount, claims }, truth, rows, distinct_keys, cents, .. } = self;
        writeln!(out, "\nClickHouse says: SELECT count(), uniqExact({key}), sum({amount}) FROM {table}")?;
        let lines = [
            ("rows", grouped(*rows)),
            ("distinct keys", grouped(*distinct_keys)),
            ("distinct keys produced", grouped(truth.distinct_keys)),
            ("sum", money(*cents)),
            ("sum produced", money(truth.cents)),
            ("rows of a plain insert", grouped(truth.rows)),
            ("duplicates kept out", grouped(truth.rows.saturating_sub(*rows))),
        ];
        let answer = |(claim, answer): (&Claim, &u64)| match claim.expects {
            Expects::DistinctKeys => (claim.name, grouped(*answer)),
            Expects::Cents => (claim.name, money(*answer)),
            Expects::ShareAtLeast(_) => (claim.name, format!("{:.1} %", *answer as f64 / 10.0)),
        };
        for (name, number) in lines.into_iter().chain(claims.iter().zip(&self.claims).map(answer)) {
            writeln!(out, "  {name:<24} {number:>18}")?;
        }
        match self.holds() {
            true => writeln!(out, "Every key is there exactly once."),
            false => writeln!(out, "NOT what went in, exactly once: please file this as a bug, with the seed."),
        }
    }
}

/// A line of the aggregates: when, of whom, how many, how much.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Aggregate {
    pub at: String,
    pub of: String,
    pub many: u64,
    pub much: String,
}

impl Aggregate {
    /// What the query of a scenario answers now.
    pub async fn ask(client: &Client, query: &str) -> Result<Vec<Aggregate>> {
        let rows = client.query(query).fetch_all::<(String, String, u64, String)>().await;
        let rows = rows.map_err(|error| {
            Error::stop("demo_aggregates", format!("cannot ask ClickHouse for the aggregates: {error}"))
        })?;
        Ok(rows.into_iter().map(|(at, of, many, much)| Aggregate { at, of, many, much }).collect())
    }
}

/// `1234` cents as `12.34`.
fn money(cents: u64) -> String {
    format!("{}.{:02}", grouped(cents / 100), cents % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLAIMS: &[Claim] = &[
        Claim { name: "in the view", query: "", expects: Expects::DistinctKeys },
        Claim { name: "sum of the view", query: "", expects: Expects::Cents },
        Claim { name: "joined", query: "", expects: Expects::ShareAtLeast(900) },
    ];

    fn proof(rows: u64, distinct_keys: u64, cents: u64, claims: [u64; 3]) -> Proof {
        let truth = GroundTruth { records: 130, rows: 110, distinct_keys: 100, cents: 12_345 };
        let result = ResultTable { table: "t", key: "k", amount: "a", claims: CLAIMS };
        Proof { result, truth, rows, distinct_keys, cents, claims: claims.to_vec() }
    }

    #[test]
    fn the_proof_holds_only_when_every_key_is_there_once_with_its_amount() {
        let good = [100, 12_345, 900];
        assert!(proof(100, 100, 12_345, good).holds());
        let wrong = [(101, 100, 12_345), (99, 99, 12_345), (100, 99, 12_345), (100, 100, 12_344)];
        assert!(wrong.iter().all(|(rows, keys, cents)| !proof(*rows, *keys, *cents, good).holds()));
    }

    #[test]
    fn each_claim_has_to_be_true() {
        for wrong in [[99, 12_345, 900], [100, 12_346, 900], [100, 12_345, 899]] {
            assert!(!proof(100, 100, 12_345, wrong).holds(), "{wrong:?}");
        }
    }

    #[test]
    fn what_it_shows_ends_with_the_verdict() {
        let shown = |proof: Proof| {
            let mut out = Vec::new();
            proof.show(&mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        let good = shown(proof(100, 100, 12_345, [100, 12_345, 978]));
        assert!(
            good.ends_with("joined                               97.8 %\nEvery key is there exactly once.\n"),
            "{good}"
        );
        assert!(good.contains("  duplicates kept out                      10\n"), "{good}");
        assert!(good.contains("  sum of the view                      123.45\n"), "{good}");
        assert!(shown(proof(99, 99, 1, [1, 1, 1])).contains("NOT what went in"));
    }
}

//! The part of a scope that joins add: names of other rows, and what a join has to keep for those who read it later.
//!
//! Owns the rule what a join's rows are made of. Promises: a slot that is filled before a join and read behind it is
//! kept by that join; nothing else is, so that what waits in state is no larger than what is used.

use super::{DerivedPath, Entry, Layout, Scope, UnknownName, Virtual};
use crate::codec::packed::Packing;
use crate::codec::rows::Slot;
use std::collections::BTreeSet;

/// A join that the scope has passed.
#[derive(Debug)]
pub(super) struct Joined {
    name: String,
    right: Scope,
    /// Slots of the key, of the left and of the right side, pair by pair.
    keys: Vec<(Slot, Slot)>,
    /// Which slot of the right becomes which of the joined row.
    fields: Vec<(Slot, Slot)>,
    columns: Vec<Column>,
}

/// A column's field: the left's, or where it has none, the right's.
#[derive(Clone, Copy, Debug)]
struct Column {
    /// The row's own field of that name.
    own: Option<Slot>,
    /// Where it lies in front of this join: there, or where an earlier join has put it.
    left: Slot,
    right: Slot,
    into: Slot,
    /// No later join's object is asked for it.
    is_last: bool,
}

/// How many joins lie behind a row when a slot is filled, and when it is read for the last time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    pub filled_behind: usize,
    pub read_behind: usize,
}

/// How the right rows of a join lie, and what its rows are made of.
#[derive(Clone, Debug)]
pub struct JoinLayout {
    pub right: Layout,
    /// The slot that gets the right row as one object, made of these fields, where a select has left only them.
    pub object: Option<(Slot, Vec<(String, Slot)>)>,
    pub fields: JoinFields,
    /// What is known of a row behind the join by name: fields that it keeps of the left, and those of its object.
    pub names: Vec<(String, Slot)>,
    /// What the packed fields of both sides mean, in their order: state that was packed under other words is not ours.
    pub kept: String,
}

/// The fields of a join.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct JoinFields {
    /// Slots of the left rows that are read behind the join.
    pub left: Packing,
    /// Slots of the right rows (in their own layout) that are.
    pub right: Packing,
    /// Which of `right` becomes which field of the joined row: the object that the join adds.
    pub joined: Vec<(usize, Slot)>,
    /// Key fields: which of `right` stands for which field of a left row that is not there.
    pub keys: Vec<(usize, Slot)>,
    /// Names of columns alone: the left's field, or where it has none, the right's.
    pub either: Vec<Either>,
    /// Says that there was no left row, here or at an earlier join, for the columns that a later join is asked for.
    pub alone: Option<Slot>,
}

/// A field that comes from the left row, if it has one of that name, else from the right one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Either {
    pub left: Slot,
    /// Which of `right`.
    pub right: usize,
    pub into: Slot,
    /// Nobody is asked after this one.
    pub is_last: bool,
}

impl Scope {
    /// Passes a join: its object is a name from here on. `keys` are slots of this scope and of the right one.
    pub fn join(&mut self, name: &str, right: Scope, keys: Vec<(Slot, Slot)>) {
        self.objects.retain(|(known, _)| known != name);
        self.objects.push((name.to_owned(), self.joins.len()));
        self.joins.push(Joined { name: name.to_owned(), right, keys, fields: vec![], columns: vec![] });
    }

    /// The slot of a column's field: behind a join, a name that the row does not have is looked up in the joined
    /// objects, in the order of the steps.
    pub fn resolve_column(&mut self, path: &str) -> Result<Slot, UnknownName> {
        if self.objects.is_empty() || self.object_of(path).is_some() || Virtual::named(path).is_some() {
            return self.resolve(path);
        }
        let of_row = self.unread_slot(path);
        let mut sources = Vec::new();
        for (_, join) in self.objects.clone() {
            let found = self.joins[join].right.resolve(path);
            sources.extend(found.map(|slot| (join, slot)));
        }
        let Some(&(first, _)) = sources.first() else {
            return of_row.inspect(|slot| self.read_behind(*slot, self.joins.len()));
        };
        let into = self.slot_filled_behind(first + 1);
        self.read_behind(into, self.joins.len());
        let own = of_row.ok();
        let mut left = own.unwrap_or(into);
        let last = sources.last().map_or(first, |(join, _)| *join);
        if last > self.joins_selected() {
            self.note_alone(last);
        }
        for (join, right) in sources {
            if left != into {
                self.read_behind(left, join + 1);
            }
            self.joins[join].columns.push(Column { own, left, right, into, is_last: join == last });
            left = into;
        }
        Ok(into)
    }

    /// How many joins lie before the last select, which has made a row of what they gave.
    fn joins_selected(&self) -> usize {
        self.joins_before.last().copied().unwrap_or(0)
    }

    /// At that join it is asked whether a row had no left one at an earlier join.
    fn note_alone(&mut self, join: usize) {
        let slot = match self.alone {
            Some(slot) => slot,
            None => self.slot_filled_behind(self.joins_selected() + 1),
        };
        self.alone = Some(slot);
        self.read_behind(slot, join + 1);
    }

    /// Which join's object a path begins with, and what is left of it.
    pub(super) fn object_of<'p>(&self, path: &'p str) -> Option<(usize, Option<&'p str>)> {
        let (head, rest) = path.split_once('.').map_or((path, None), |(head, rest)| (head, Some(rest)));
        let (_, join) = self.objects.iter().find(|(name, _)| name == head)?;
        Some((*join, rest))
    }

    /// The slot of a field below a joined object.
    pub(super) fn joined_slot(&mut self, join: usize, path: &str, below: &str) -> Result<Slot, UnknownName> {
        let Joined { name, right, .. } = &mut self.joins[join];
        let right = right.resolve(below).map_err(|unknown| match unknown {
            UnknownName::NotSelected { known, .. } => {
                let known = known.iter().map(|known| format!("{name}.{known}")).collect();
                UnknownName::NotSelected { path: path.to_owned(), known }
            }
            UnknownName::NotVirtual { instead, .. } => UnknownName::NotVirtual { path: path.to_owned(), instead },
        })?;
        Ok(self.slot_of_right(join, right))
    }

    /// The slot of a joined object itself.
    pub(super) fn object_slot(&mut self, join: usize) -> Slot {
        let right = self.joins[join].right.whole_slot();
        self.slot_of_right(join, right)
    }

    fn whole_slot(&mut self) -> Slot {
        if let Some(slot) = self.whole {
            return slot;
        }
        let slot = self.slot_filled_behind(0);
        self.whole = Some(slot);
        slot
    }

    fn slot_of_right(&mut self, join: usize, right: Slot) -> Slot {
        if let Some((_, slot)) = self.joins[join].fields.iter().find(|(known, _)| *known == right) {
            return *slot;
        }
        let slot = self.slot_filled_behind(join + 1);
        self.joins[join].fields.push((right, slot));
        slot
    }

    pub(super) fn read_behind(&mut self, slot: Slot, joins: usize) {
        let life = &mut self.lives[slot.0 as usize];
        life.read_behind = life.read_behind.max(joins);
    }

    /// What each join is made of; they are taken out.
    pub(super) fn join_layouts(&mut self) -> Vec<JoinLayout> {
        let names: Vec<Option<String>> = (0..self.width).map(|slot| self.name_of(Slot(slot))).collect();
        let meanings: Vec<String> = (0..self.width).map(|slot| self.meaning(Slot(slot))).collect();
        let joins = std::mem::take(&mut self.joins);
        let layouts = joins.into_iter().enumerate().map(|(number, join)| {
            let mut layout = join.layout(number, &self.lives, &meanings);
            layout.names = layout.fields.named(&names);
            let asks = |slot: &Slot| (self.joins_selected()..self.lives[slot.0 as usize].read_behind).contains(&number);
            layout.fields.alone = self.alone.filter(asks);
            layout
        });
        layouts.collect()
    }

    /// What fills a slot, in words that depend on nothing but the steps and what the slot was asked for: not on its
    /// number, and not on the order in which columns ask.
    fn meaning(&self, slot: Slot) -> String {
        let payload = self.payload.iter().find(|path| path.slot == slot).map(|path| format!("field {:?}", path.parts));
        let of_virtual = || Some(self.virtuals.iter().find(|(_, known)| *known == slot)?.0.name());
        let derived = || {
            let DerivedPath { select, from, path, .. } = self.derived.iter().find(|derived| derived.slot == slot)?;
            Some(format!("{path:?} behind select {select} below {}", self.meaning(*from)))
        };
        let whole = || (self.whole == Some(slot)).then(|| "row".to_owned());
        let joined = || {
            self.joins.iter().enumerate().find_map(|(number, join)| {
                let (right, _) = join.fields.iter().find(|(_, into)| *into == slot)?;
                Some(format!("join {number} {}", join.right.meaning(*right)))
            })
        };
        let computed = || {
            let number = self.computed.iter().position(|known| *known == slot)?;
            Some(format!("computed {number}"))
        };
        let alone = || (self.alone == Some(slot)).then(|| "alone".to_owned());
        let found = payload
            .or_else(of_virtual)
            .or_else(derived)
            .or_else(whole)
            .or_else(joined)
            .or_else(computed)
            .or_else(alone);
        found.unwrap_or_else(|| self.meaning_of_column(slot))
    }

    /// The left's field, or one of the first object that has it.
    fn meaning_of_column(&self, slot: Slot) -> String {
        let mut text = "column".to_owned();
        for (number, join) in self.joins.iter().enumerate() {
            for column in join.columns.iter().filter(|column| column.into == slot) {
                if text == "column" {
                    text += &column.own.map(|own| format!(" {}", self.meaning(own))).unwrap_or_default();
                }
                text += &format!(" or join {number} {}", join.right.meaning(column.right));
            }
        }
        text
    }

    /// How a person calls what a slot holds; `None` for what an expression made and nobody named.
    fn name_of(&self, slot: Slot) -> Option<String> {
        let payload = self.payload.iter().find(|path| path.slot == slot).map(|path| path.parts.join("."));
        let of_virtual = || self.virtuals.iter().find(|(_, known)| *known == slot).map(|(field, _)| field.name());
        let joined = || {
            self.joins.iter().find_map(|join| {
                let (right, _) = join.fields.iter().find(|(_, known)| *known == slot)?;
                let below = join.right.name_of(*right).map(|name| format!(".{name}")).unwrap_or_default();
                Some(join.name.clone() + &below)
            })
        };
        let selected = || {
            let named = self.closed.iter().flatten().find(|(_, entry)| *entry == Entry::Slot(slot));
            named.map(|(name, _)| name.clone())
        };
        payload.or_else(of_virtual).or_else(joined).or_else(selected)
    }

    /// The row as one object of its selected fields, where somebody asks for it.
    fn object_of_selected(&mut self) -> Option<(Slot, Vec<(String, Slot)>)> {
        let whole = self.whole?;
        let names: Vec<String> = self.names()?.into_iter().map(str::to_owned).collect();
        let slot = |scope: &mut Scope, name: &str| scope.resolve(name).expect("the scope has its own names");
        Some((whole, names.into_iter().map(|name| (name.clone(), slot(self, &name))).collect()))
    }
}

impl Joined {
    fn layout(mut self, number: usize, lives: &[Life], meanings: &[String]) -> JoinLayout {
        let is_kept = |life: &Life| life.filled_behind <= number && number < life.read_behind;
        let kept = lives.iter().enumerate().filter(|(_, life)| is_kept(life)).map(|(slot, _)| Slot(slot as u16));
        let (left, left_meanings) = in_order(kept, |slot| meanings[slot.0 as usize].clone());
        let read = self.keys.iter().filter(|(of_left, _)| left.contains(of_left));
        let mut keys: Vec<(Slot, Slot)> = read.map(|(of_left, of_right)| (*of_right, *of_left)).collect();
        for column in &self.columns {
            // The key under a column's name that passed an earlier join.
            let key = self.keys.iter().find(|(of_left, _)| column.own == Some(*of_left) && *of_left != column.left);
            keys.extend(key.map(|(_, of_right)| (*of_right, column.left)));
        }
        let of_right = self.fields.iter().chain(&keys).map(|(from, _)| *from);
        let of_right = of_right.chain(self.columns.iter().map(|column| column.right));
        let (right, right_meanings) = in_order(of_right, |slot| self.right.meaning(slot));
        let place = |slot: Slot| right.iter().position(|known| *known == slot).expect("it was just collected");
        let placed = |(from, into): &(Slot, Slot)| (place(*from), *into);
        let either = |&Column { left, right, into, is_last, .. }: &Column| {
            let right = place(right);
            Either { left, right, into, is_last }
        };
        let (joined, keys) = (self.fields.iter().map(placed).collect(), keys.iter().map(placed).collect());
        let either = self.columns.iter().map(either).collect();
        let object = self.right.object_of_selected();
        let (left, right) = (Packing { slots: left }, Packing { slots: right });
        let fields = JoinFields { left, right, joined, keys, either, alone: None };
        let kept = format!("{left_meanings:?} {right_meanings:?}");
        JoinLayout { right: self.right.layout(), object, fields, names: vec![], kept }
    }
}

/// Each slot once, in the order of what they mean: so columns that change places change nothing that is stored.
fn in_order(slots: impl Iterator<Item = Slot>, meaning: impl Fn(Slot) -> String) -> (Vec<Slot>, Vec<String>) {
    let slots: BTreeSet<Slot> = slots.collect();
    let mut named: Vec<(String, Slot)> = slots.into_iter().map(|slot| (meaning(slot), slot)).collect();
    named.sort_unstable();
    named.into_iter().map(|(meaning, slot)| (slot, meaning)).unzip()
}

impl JoinFields {
    /// The fields that have a name, of the left and of the object.
    fn named(&self, names: &[Option<String>]) -> Vec<(String, Slot)> {
        let slots = self.left.slots.iter().chain(self.joined.iter().map(|(_, into)| into));
        slots.filter_map(|slot| Some((names[slot.0 as usize].clone()?, *slot))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::scope::Selected;

    /// Orders joined with payments by `id`.
    fn joined() -> Scope {
        let (mut orders, mut payments) = (Scope::new(), Scope::new());
        let key = (orders.resolve("id").unwrap(), payments.resolve("order_id").unwrap());
        orders.join("payment", payments, vec![key]);
        orders
    }

    fn fields(scope: Scope) -> JoinFields {
        let (layout, mut joins) = scope.finish_with_joins();
        assert!(joins.iter().all(|join| join.right.width == layout.width));
        joins.swap_remove(0).fields
    }

    #[test]
    fn a_path_below_the_object_is_a_field_of_the_right_row() {
        let mut scope = joined();
        let amount = scope.resolve("payment.amount").unwrap();
        assert_eq!(scope.resolve("payment.amount").unwrap(), amount);
        assert_ne!(scope.resolve("amount").unwrap(), amount);
        let (_, joins) = scope.finish_with_joins();
        let join = &joins[0];
        let (place, into) = join.fields.joined[0];
        assert_eq!(into, amount);
        let slot = join.fields.right.slots[place];
        assert!(join.right.paths.iter().any(|path| path.parts == ["amount"] && path.slot == slot));
    }

    #[test]
    fn only_what_is_read_behind_the_join_is_kept() {
        let mut scope = Scope::new();
        scope.resolve("only_before").unwrap();
        let both = scope.resolve("both").unwrap();
        let mut payments = Scope::new();
        payments.resolve("only_there").unwrap();
        scope.join("payment", payments, vec![]);
        let (_, behind) = (scope.resolve("both").unwrap(), scope.resolve("only_behind").unwrap());
        let computed = scope.computed();
        scope.read_behind(computed, 1);
        let of_payment = scope.resolve("payment.x").unwrap();
        let fields = fields(scope);
        assert_eq!(fields.left.slots, [both, behind]);
        assert_eq!((fields.joined, fields.right.slots.len()), (vec![(0, of_payment)], 1));
    }

    #[test]
    fn what_is_kept_lies_in_an_order_that_does_not_depend_on_the_columns() {
        let kept = |columns: &[&str]| {
            let mut scope = joined();
            columns.iter().for_each(|column| _ = scope.resolve_column(column).unwrap());
            let (_, joins) = scope.finish_with_joins();
            joins[0].kept.clone()
        };
        let plain = kept(&["id", "amount", "payment.bank", "_offset"]);
        assert_eq!(kept(&["_offset", "payment.bank", "amount", "id"]), plain);
        assert_ne!(kept(&["id", "amount", "payment.bank", "_offset", "note"]), plain);
        assert_ne!(kept(&["id", "payment.amount", "payment.bank", "_offset"]), plain);
    }

    #[test]
    fn what_a_later_join_reads_passes_through_the_earlier_one() {
        let mut scope = joined();
        let region = (scope.resolve("payment.region").unwrap(), Slot(0));
        let mut regions = Scope::new();
        regions.resolve("id").unwrap();
        scope.join("region", regions, vec![region]);
        let name = scope.resolve("region.name").unwrap();
        let amount = scope.resolve("payment.amount").unwrap();
        let (_, joins) = scope.finish_with_joins();
        // The key was read at the second join, and nobody needs it behind.
        assert_eq!(joins[1].fields.left.slots, [amount]);
        assert_eq!(joins[1].fields.joined[0].1, name);
        let filled: Vec<Slot> = joins[0].fields.joined.iter().map(|(_, into)| *into).collect();
        assert_eq!(filled, [region.0, amount]);
        assert!(joins[0].fields.left.slots.is_empty());
    }

    #[test]
    fn a_right_row_alone_brings_the_key_that_is_read_behind() {
        let mut scope = joined();
        let id = scope.resolve("id").unwrap();
        let fields = fields(scope);
        assert_eq!(fields.left.slots, [id]);
        let [(place, into)] = fields.keys[..] else { panic!("{fields:?}") };
        assert_eq!((into, fields.right.slots[place]), (id, Slot(0)));
        assert!(self::fields(joined()).keys.is_empty(), "nobody reads it");
    }

    #[test]
    fn the_object_wins_over_a_field_of_its_name_and_a_select_hides_it() {
        let mut scope = joined();
        let object = scope.resolve("payment").unwrap();
        scope
            .close(vec![("p".into(), Selected::Path("payment".into())), ("id".into(), Selected::Path("id".into()))])
            .unwrap();
        assert!(scope.resolve("payment.amount").is_err());
        assert_eq!(scope.resolve("p").unwrap(), object);
        let amount = scope.resolve("p.amount").unwrap();
        let (_, joins) = scope.finish_with_joins();
        assert!(joins[0].fields.joined.iter().any(|(_, into)| *into == amount));
        assert!(joins[0].right.whole.is_some());
        assert!(joins[0].object.is_none(), "the payload itself is the object");
    }

    #[test]
    fn behind_a_select_on_the_right_only_its_names_are_known() {
        let mut right = Scope::new();
        right.close(vec![("a".into(), Selected::Path("x.y".into()))]).unwrap();
        let mut scope = Scope::new();
        scope.join("r", right, vec![]);
        let unknown = scope.resolve("r.b").unwrap_err();
        assert_eq!(unknown.to_string(), "`r.b` is not among the selected fields: r.a");
        scope.resolve("r").unwrap();
        let (_, joins) = scope.finish_with_joins();
        let (whole, parts) = joins[0].object.as_ref().unwrap();
        assert_eq!(parts.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["a"]);
        assert!(joins[0].fields.right.slots.contains(whole));
        assert_eq!(joins[0].right.whole, None);
    }

    #[test]
    fn a_column_that_the_row_does_not_have_is_looked_up_in_the_objects_in_their_order() {
        let mut scope = joined();
        let mut users = Scope::new();
        users.resolve("id").unwrap();
        scope.join("user", users, vec![]);
        let country = scope.resolve_column("country").unwrap();
        assert_eq!(scope.resolve_column("_offset").unwrap(), scope.resolve("_offset").unwrap());
        let (layout, joins) = scope.finish_with_joins();
        let own = layout.paths.iter().find(|path| path.parts == ["country"]).unwrap().slot;
        let [first, second] = [0, 1].map(|join: usize| joins[join].fields.either[0]);
        assert_eq!((first.left, first.into), (own, country));
        assert_eq!((second.left, second.into), (country, country));
        assert!(joins[0].fields.left.slots.contains(&own) && !joins[1].fields.left.slots.contains(&own));
        assert!(joins[1].fields.left.slots.contains(&country));
    }

    #[test]
    fn a_right_row_alone_at_a_later_join_brings_the_key_to_the_column_of_its_name() {
        let mut scope = joined();
        let mut users = Scope::new();
        let key = (scope.resolve("user_id").unwrap(), users.resolve("id").unwrap());
        scope.join("user", users, vec![key]);
        let column = scope.resolve_column("user_id").unwrap();
        let (_, joins) = scope.finish_with_joins();
        let fields = &joins[1].fields;
        assert!(fields.keys.iter().any(|(place, into)| *into == column && fields.right.slots[*place] == key.1));
        assert_eq!(joins[0].fields.keys, []);
    }

    #[test]
    fn behind_a_select_a_column_is_the_selected_field_or_one_of_a_later_object() {
        let mut scope = joined();
        scope.close(vec![("id".into(), Selected::Path("id".into()))]).unwrap();
        assert!(scope.resolve_column("amount").is_err(), "the payment is not among the selected");
        scope.join("user", Scope::new(), vec![]);
        let amount = scope.resolve_column("amount").unwrap();
        let (_, joins) = scope.finish_with_joins();
        let either = joins[1].fields.either[0];
        assert_eq!((either.left, either.into), (amount, amount));
        assert!(joins[0].fields.either.is_empty());
    }
}

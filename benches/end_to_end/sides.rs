//! The two sides of the joins: orders with payments, visits with users; about 250 bytes each.
//!
//! Every record is a function of its number. Each order has its payment, up to five seconds later in event time and
//! up to five seconds out of its place in the topic.

use crate::traffic::mixed;
use std::io::Write;

/// The first order's and visit's time.
const BEGIN_MS: u64 = 1_790_000_000_000;
/// From one order to the next: ten minutes hold 60,000 of them, a hundred minutes ten times that.
const ORDER_EVERY_MS: u64 = 10;
/// From one visit to the next.
const VISIT_EVERY_MS: u64 = 1;
/// A payment comes so much later than its order, at most.
const PAID_WITHIN_MS: u64 = 5_000;
/// In each stretch of this many, the payments stand in the opposite order: five seconds of orders.
pub const TURNED: u64 = PAID_WITHIN_MS / ORDER_EVERY_MS;

const METHODS: [&str; 4] = ["card", "transfer", "wallet", "invoice"];
const CURRENCIES: [&str; 4] = ["EUR", "USD", "GBP", "PLN"];
const CITIES: [&str; 6] = ["Hamburg", "Lyon", "Leeds", "Gdansk", "Osaka", "Porto"];
const COUNTRIES: [&str; 8] = ["DE", "FR", "US", "GB", "PL", "ES", "NL", "JP"];
const TIERS: [&str; 4] = ["new", "bronze", "silver", "gold"];
const WRITES: &str = "a vector takes everything";

pub fn write_order(number: u64, key: &mut Vec<u8>, payload: &mut Vec<u8>) {
    let chance = mixed(number);
    write!(key, "order-{number:010}").expect(WRITES);
    write!(
        payload,
        "{{\"order_id\":\"order-{number:010}\",\"customer_id\":{},\"placed_at\":{},\"amount\":{}.{:02},\
         \"currency\":\"{}\",\"items\":{},\"address\":{{\"street\":\"Deichstrasse {}\",\"city\":\"{}\",\"zip\":\"{:05}\"}},\
         \"channel\":\"web\",\"coupon\":null,\"note\":\"leave it at the door, please\"}}",
        1_000_000 + chance % 5_000_000,
        BEGIN_MS + number * ORDER_EVERY_MS,
        (chance >> 8) % 1000,
        (chance >> 20) % 100,
        pick(&CURRENCIES, chance >> 30),
        1 + (chance >> 34) % 9,
        1 + (chance >> 38) % 200,
        pick(&CITIES, chance >> 44),
        (chance >> 48) % 100_000,
    )
    .expect(WRITES);
}

/// The payment at this place of the topic.
pub fn write_payment(place: u64, key: &mut Vec<u8>, payload: &mut Vec<u8>) {
    let order = place - place % TURNED + (TURNED - 1 - place % TURNED);
    let chance = mixed(order ^ 0x5bd1_e995);
    let of_order = mixed(order);
    write!(key, "order-{order:010}").expect(WRITES);
    write!(
        payload,
        "{{\"payment_id\":\"{chance:016x}\",\"order_id\":\"order-{order:010}\",\"paid_at\":{},\"amount\":{}.{:02},\
         \"method\":\"{}\",\"provider\":{{\"name\":\"paywell\",\"region\":\"eu-central\",\"attempt\":{}}},\
         \"reference\":\"{:016x}{:016x}\",\"state\":\"captured\",\"risk\":{{\"score\":{}}}}}",
        BEGIN_MS + order * ORDER_EVERY_MS + chance % PAID_WITHIN_MS,
        (of_order >> 8) % 1000,
        (of_order >> 20) % 100,
        pick(&METHODS, chance >> 16),
        1 + (chance >> 20) % 3,
        mixed(chance),
        mixed(chance ^ 1),
        (chance >> 24) % 100,
    )
    .expect(WRITES);
}

/// A visit of one of so many users, whoever that is.
pub fn write_visit(number: u64, users: u64, key: &mut Vec<u8>, payload: &mut Vec<u8>) {
    let chance = mixed(number ^ 0x9e37_79b9);
    let user = chance % users;
    write!(key, "{user}").expect(WRITES);
    write!(
        payload,
        "{{\"visit_id\":\"{:016x}\",\"user_id\":{user},\"at\":{},\"url\":\"https://shop.example/products/{}\",\
         \"referrer\":\"https://search.example/q?shoes\",\"device\":{{\"os\":\"Android 16\",\"screen\":\"1080x2400\"}},\
         \"seconds\":{},\"session\":\"{:016x}\"}}",
        mixed(chance),
        BEGIN_MS + number * VISIT_EVERY_MS,
        100_000 + (chance >> 32) % 50_000,
        1 + (chance >> 40) % 600,
        mixed(chance ^ 2),
    )
    .expect(WRITES);
}

/// The user of this number, as he was before the first visit.
pub fn write_user(number: u64, key: &mut Vec<u8>, payload: &mut Vec<u8>) {
    let chance = mixed(number ^ 0x2545_f491);
    write!(key, "{number}").expect(WRITES);
    write!(
        payload,
        "{{\"user_id\":{number},\"name\":\"User {:06x}\",\"country\":\"{}\",\"tier\":\"{}\",\"updated_at\":{},\
         \"email\":\"user-{number}@mail.example\",\"address\":{{\"city\":\"{}\",\"zip\":\"{:05}\"}},\
         \"consent\":{{\"news\":true,\"ads\":false}},\"created\":\"2024-05-01\"}}",
        chance & 0xff_ffff,
        pick(&COUNTRIES, chance >> 24),
        pick(&TIERS, chance >> 28),
        BEGIN_MS - 1 - chance % 60_000,
        pick(&CITIES, chance >> 32),
        (chance >> 36) % 100_000,
    )
    .expect(WRITES);
}

fn pick(list: &[&'static str], bits: u64) -> &'static str {
    list[bits as usize % list.len()]
}

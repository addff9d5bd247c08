use crate::support::redis::Redis;

#[test]
fn redis_is_killed_and_comes_back_on_its_port() {
    let mut redis = Redis::start();
    let url = redis.url();
    redis.kill();
    redis.restart();
    assert_eq!(redis.url(), url);
}

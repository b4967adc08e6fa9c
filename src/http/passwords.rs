//! Users and their passwords, checked without holding anybody up.
//!
//! A bcrypt hash is slow by design, and here anybody may ask for one. So one is computed at a
//! time, away from the loop; few may wait for theirs; and who was right once is known from then
//! on.
//!
//! **Invariant:** a wrong password costs the same whether there is such a user or not.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::domain::role::Roles;

/// Requests that may wait for a hash; further ones are told to come again.
const WAITING_MAX: usize = 32;

/// Right passwords remembered. There is one for each user, but for what bcrypt does not read.
const REMEMBERED_MAX: usize = 1024;

/// One user.
#[derive(Clone)]
pub struct User {
    /// The bcrypt hash of the password.
    pub hash: String,
    /// What the user may do.
    pub roles: Roles,
}

/// Too many passwords wait to be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Busy;

/// The users there are.
pub(super) struct Passwords {
    users: BTreeMap<String, User>,
    /// The hash that takes longest, computed for who is no user.
    decoy: String,
    /// Makes what is remembered worthless elsewhere.
    salt: [u8; 32],
    remembered: Mutex<HashSet<[u8; 32]>>,
    waiting: Semaphore,
    turn: Arc<Semaphore>,
}

impl Passwords {
    /// `None` if there are no users, or no randomness to be had.
    pub(super) fn new(users: BTreeMap<String, User>) -> Option<Self> {
        let cost = |user: &&User| user.hash.parse().map_or(0, |p: bcrypt::HashParts| p.get_cost());
        let decoy = users.values().max_by_key(cost)?.hash.clone();
        let mut salt = [0; 32];
        getrandom::fill(&mut salt).ok()?;
        Some(Self {
            users,
            decoy,
            salt,
            remembered: Mutex::default(),
            waiting: Semaphore::new(WAITING_MAX),
            turn: Arc::new(Semaphore::new(1)),
        })
    }

    /// What the user may do, if it is one with this password.
    pub(super) async fn check(&self, name: &str, password: &str) -> Result<Option<Roles>, Busy> {
        let user = self.users.get(name);
        let hash = user.map_or(&self.decoy, |user| &user.hash);
        let key = self.key(name, hash, password);
        if self.remembered().contains(&key) {
            return Ok(user.map(|user| user.roles));
        }
        let matches = self.matches(hash.clone(), password.to_owned()).await?;
        let Some(user) = user.filter(|_| matches) else { return Ok(None) };
        let mut remembered = self.remembered();
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(key);
        Ok(Some(user.roles))
    }

    async fn matches(&self, hash: String, password: String) -> Result<bool, Busy> {
        let _place = self.waiting.try_acquire().map_err(|_| Busy)?;
        let turn = Arc::clone(&self.turn).acquire_owned().await.map_err(|_| Busy)?;
        let computed = spawn_blocking(move || {
            let matches = bcrypt::verify(password, &hash).unwrap_or(false);
            // Held to the end: a peer that hangs up must not have the next one computed beside.
            drop(turn);
            matches
        });
        computed.await.map_err(|_| Busy)
    }

    fn key(&self, name: &str, hash: &str, password: &str) -> [u8; 32] {
        let mut digest = Sha256::new_with_prefix(self.salt);
        for part in [name, hash, password] {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        digest.finalize().into()
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, HashSet<[u8; 32]>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::role::Role;

    fn passwords(names: &[&str]) -> Arc<Passwords> {
        let user = |name: &&str| {
            let hash = bcrypt::hash(format!("{name}'s own"), 4).unwrap();
            ((*name).to_owned(), User { hash, roles: Roles::NONE.and(Role::Read) })
        };
        Arc::new(Passwords::new(names.iter().map(user).collect()).unwrap())
    }

    #[tokio::test]
    async fn only_a_users_own_password_is_right_and_it_stays_so() {
        let passwords = passwords(&["ada", "grace"]);
        let reads = Some(Roles::NONE.and(Role::Read));
        for _ in 0..2 {
            #[rustfmt::skip]
            let cases = [
                ("ada",    "ada's own",        reads),
                ("grace",  "ada's own",        None),
                ("ada",    "ada's ow",         None),
                ("ada",    "",                 None),
                ("ada",    "ada's own\0",      None),
                ("nobody", "ada's own",        None),
                ("",       "",                 None),
            ];
            for (name, password, want) in cases {
                assert_eq!(passwords.check(name, password).await, Ok(want), "{name}: {password}");
            }
        }
        assert_eq!(passwords.remembered().len(), 1, "what is wrong is not remembered");
    }

    #[tokio::test]
    async fn a_flood_of_wrong_passwords_waits_in_a_short_queue_and_lets_the_known_pass() {
        let passwords = passwords(&["ada"]);
        passwords.check("ada", "ada's own").await.unwrap();
        let turn = Arc::clone(&passwords.turn).acquire_owned().await.unwrap();
        let guesses: Vec<_> = (0..WAITING_MAX)
            .map(|n| {
                let passwords = Arc::clone(&passwords);
                tokio::spawn(async move { passwords.check("ada", &n.to_string()).await })
            })
            .collect();
        while passwords.waiting.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(passwords.check("ada", "one more").await, Err(Busy));
        assert_eq!(passwords.check("nobody", "one more").await, Err(Busy));
        assert!(passwords.check("ada", "ada's own").await.unwrap().is_some());
        drop(turn);
        for guess in guesses {
            assert_eq!(guess.await.unwrap(), Ok(None));
        }
    }

    #[test]
    fn who_is_no_user_costs_as_much_as_the_costliest_one() {
        let hash = |cost| bcrypt::hash("x", cost).unwrap();
        let user = |hash: String| User { hash, roles: Roles::NONE };
        let users = [("a", 4), ("b", 6), ("c", 5)].map(|(n, c)| (n.to_owned(), user(hash(c))));
        let passwords = Passwords::new(BTreeMap::from(users)).unwrap();
        assert_eq!(passwords.decoy.parse::<bcrypt::HashParts>().unwrap().get_cost(), 6);
    }
}

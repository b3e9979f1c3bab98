//! How single fields are read and written, where serde's defaults differ from the engine's schemas.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, DeserializeSeed, IntoDeserializer, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::ids::{AgentToken, NodeToken, WorkspaceKey};

/// The largest integer that JavaScript holds exactly; the engine's schemas refuse a larger one.
pub(crate) const SAFE_INTEGER_MAX: u64 = (1 << 53) - 1;

/// An optional field that may be absent but not null: serde would take a null for absent.
pub(crate) fn present<'de, D, T>(d: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(d).map(Some)
}

/// A nested object. (A derived struct would also take an array of its fields' values.)
pub(crate) fn present_object<'de, D, T>(d: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(OnlyObject(d)).map(Some)
}

/// An array of nested objects.
pub(crate) fn objects<'de, D, T, L>(d: D) -> Result<L, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
    L: From<Objects<T>>,
{
    Objects::deserialize(d).map(L::from)
}

/// See [`objects`].
pub(crate) struct Objects<T>(Vec<T>);

impl<T> From<Objects<T>> for Vec<T> {
    fn from(objects: Objects<T>) -> Self {
        objects.0
    }
}

impl<T> From<Objects<T>> for Option<Vec<T>> {
    fn from(objects: Objects<T>) -> Self {
        Some(objects.0)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Objects<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Item<T>(T);

        impl<'de, T: Deserialize<'de>> Deserialize<'de> for Item<T> {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                T::deserialize(OnlyObject(d)).map(Item)
            }
        }

        let items = Vec::<Item<T>>::deserialize(d)?;
        Ok(Self(items.into_iter().map(|Item(item)| item).collect()))
    }
}

/// Lets a struct be read from an object only.
struct OnlyObject<D>(D);

impl<'de, D: Deserializer<'de>> Deserializer<'de> for OnlyObject<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_map(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// A field whose null reads as its default.
pub(crate) fn null_as_default<'de, D, T>(d: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::<T>::deserialize(d).map(Option::unwrap_or_default)
}

/// A non-negative integer as JavaScript understands it: `17` and `17.0` are one number.
pub(crate) fn unsigned<'de, D, T>(d: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: From<SafeInteger>,
{
    SafeInteger::deserialize(d).map(T::from)
}

/// See [`unsigned`].
#[derive(Clone, Copy)]
pub(crate) struct SafeInteger(u64);

impl From<SafeInteger> for u64 {
    fn from(n: SafeInteger) -> Self {
        n.0
    }
}

impl From<SafeInteger> for Option<u64> {
    fn from(n: SafeInteger) -> Self {
        Some(n.0)
    }
}

impl From<SafeInteger> for crate::ids::Seq {
    fn from(n: SafeInteger) -> Self {
        Self(n.0)
    }
}

impl<'de> Deserialize<'de> for SafeInteger {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Whole;

        impl Visitor<'_> for Whole {
            type Value = SafeInteger;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an integer from 0 to 2^53-1")
            }

            fn visit_u64<E: de::Error>(self, n: u64) -> Result<SafeInteger, E> {
                if n <= SAFE_INTEGER_MAX {
                    Ok(SafeInteger(n))
                } else {
                    Err(E::invalid_value(de::Unexpected::Unsigned(n), &self))
                }
            }

            fn visit_i64<E: de::Error>(self, n: i64) -> Result<SafeInteger, E> {
                u64::try_from(n)
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(n), &self))
                    .and_then(|n| self.visit_u64(n))
            }

            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "the range is checked first, and up to 2^53 a double is exact"
            )]
            fn visit_f64<E: de::Error>(self, n: f64) -> Result<SafeInteger, E> {
                if n.fract() == 0.0 && (0.0..=SAFE_INTEGER_MAX as f64).contains(&n) {
                    Ok(SafeInteger(n as u64))
                } else {
                    Err(E::invalid_value(de::Unexpected::Float(n), &self))
                }
            }
        }

        d.deserialize_any(Whole)
    }
}

/// A number as JavaScript writes it: a whole one without a fraction.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "up to 2^53 a double is exact"
)]
pub(crate) fn number<S: Serializer>(n: f64, s: S) -> Result<S::Ok, S::Error> {
    if n.fract() == 0.0 && n.abs() <= SAFE_INTEGER_MAX as f64 {
        s.serialize_i64(n as i64)
    } else {
        s.serialize_f64(n)
    }
}

/// The same for a number that may be null.
#[allow(clippy::ref_option, clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
pub(crate) fn number_or_null<S: Serializer>(n: &Option<f64>, s: S) -> Result<S::Ok, S::Error> {
    match n {
        Some(n) => number(*n, s),
        None => s.serialize_none(),
    }
}

/// The JSON `null`.
pub(crate) fn null() -> Box<RawValue> {
    RawValue::NULL.to_owned()
}

/// Secrets in bodies: written and read as plain strings, without ever implementing serde on the type
/// itself, so that a secret cannot slip into a log or a state file by being a field of something.
pub(crate) mod secret {
    use super::{AgentToken, Deserialize, Deserializer, NodeToken, Serializer, WorkspaceKey};

    /// The types that may stand in a body.
    pub(crate) trait Secret: From<String> {
        /// The secret itself.
        fn reveal(&self) -> &str;
    }

    macro_rules! secret {
        ($($name:ident),+) => {
            $(impl Secret for $name {
                fn reveal(&self) -> &str {
                    self.expose()
                }
            })+
        };
    }
    secret!(AgentToken, NodeToken, WorkspaceKey);

    pub(crate) fn serialize<S: Serializer, T: Secret>(secret: &T, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(secret.reveal())
    }

    pub(crate) fn deserialize<'de, D, T>(d: D) -> Result<T, D::Error>
    where
        D: Deserializer<'de>,
        T: Secret,
    {
        String::deserialize(d).map(T::from)
    }

    /// The same for a secret that may be absent or null.
    pub(crate) mod optional {
        use super::{Deserialize, Deserializer, Secret, Serializer};

        #[allow(clippy::ref_option, reason = "the signature is serde's")]
        pub(crate) fn serialize<S: Serializer, T: Secret>(
            secret: &Option<T>,
            s: S,
        ) -> Result<S::Ok, S::Error> {
            match secret {
                Some(secret) => s.serialize_str(secret.reveal()),
                None => s.serialize_none(),
            }
        }

        pub(crate) fn deserialize<'de, D, T>(d: D) -> Result<Option<T>, D::Error>
        where
            D: Deserializer<'de>,
            T: Secret,
        {
            Ok(Option::<String>::deserialize(d)?.map(T::from))
        }
    }
}

/// Writes `{"v":1,"type":kind, …body}`.
///
/// # Errors
/// When the body is not an object, or cannot be written.
pub(crate) fn write_framed(kind: &str, body: &impl Serialize) -> serde_json::Result<String> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(br#"{"v":1,"type":"#);
    serde_json::to_writer(&mut out, kind)?;
    let brace = out.len();
    serde_json::to_writer(&mut out, body)?;
    match out.get(brace..) {
        Some(b"{}") => {
            out.remove(brace);
        }
        Some([b'{', ..]) => out[brace] = b',',
        _ => return Err(de::Error::custom("the body of a frame must be an object")),
    }
    String::from_utf8(out).map_err(de::Error::custom)
}

/// Hides `v` and `type` from a frame's body, so that the body's own type can refuse every key it does not
/// know. (serde's tagged enums buffer the whole frame, which loses raw JSON, and cannot refuse keys.)
pub(crate) struct Headless<D>(pub(crate) D);

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Headless<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_map(HeadlessVisitor(visitor))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

struct HeadlessVisitor<V>(V);

impl<'de, V: Visitor<'de>> Visitor<'de> for HeadlessVisitor<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.0.visit_map(HeadlessMap(map))
    }
}

struct HeadlessMap<A>(A);

impl<'de, A: MapAccess<'de>> MapAccess<'de> for HeadlessMap<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        while let Some(key) = self.0.next_key::<String>()? {
            if key == "v" || key == "type" {
                self.0.next_value::<de::IgnoredAny>()?;
            } else {
                return seed.deserialize(key.into_deserializer()).map(Some);
            }
        }
        Ok(None)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.0.next_value_seed(seed)
    }
}

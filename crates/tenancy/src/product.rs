//! What a product declares of itself, for both planes.
//!
//! The declaration is plain data. The product's migrations and seed belong to the control plane, its handlers to the
//! data plane; neither appears here.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

/// The type of a configuration key's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ValueType {
    /// `true` or `false`.
    Boolean,
    /// A whole number.
    Integer,
    /// A text.
    Text,
}

impl ValueType {
    /// Whether a value is of this type.
    pub fn admits(self, value: &Value) -> bool {
        match self {
            Self::Boolean => value.is_boolean(),
            Self::Integer => value.is_i64() || value.is_u64(),
            Self::Text => value.is_string(),
        }
    }
}

/// A key that a tenant's configuration may have.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ConfigKey {
    /// Its name.
    pub name: &'static str,
    /// What its values are.
    pub value_type: ValueType,
    /// What holds when a tenant has not set it.
    pub default: Value,
    /// What it does, for the operator who sets it.
    pub meaning: &'static str,
}

/// What is built on Freehold.
#[derive(Clone, Debug)]
pub struct Product {
    /// Its name, for people.
    pub name: &'static str,
    /// Where its handlers are mounted, such as `/api`.
    pub mount: &'static str,
    /// How many of its migrations a tenant's database must have to be served.
    pub schema_version: u32,
    /// What keys may allow, such as `pets:read`.
    pub scopes: &'static [&'static str],
    /// What a tenant's configuration may have.
    pub config_keys: Vec<ConfigKey>,
}

/// A configuration entry that the product did not declare so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConfig {
    /// No such key.
    #[error("the product has no configuration key {key:?}; it has: {known}")]
    UnknownKey {
        /// The key asked for.
        key: String,
        /// The keys there are.
        known: String,
    },
    /// Another type.
    #[error("configuration key {key:?} takes {expected:?} values")]
    WrongType {
        /// The key.
        key: String,
        /// What it takes.
        expected: ValueType,
    },
}

impl Product {
    /// The declaration of a configuration key.
    pub fn config_key(&self, name: &str) -> Option<&ConfigKey> {
        self.config_keys.iter().find(|key| key.name == name)
    }

    /// Whether a tenant may have this entry.
    pub fn check_config(&self, key: &str, value: &Value) -> Result<(), InvalidConfig> {
        let Some(declared) = self.config_key(key) else {
            let known = self.config_keys.iter().map(|key| key.name).collect::<Vec<_>>().join(", ");
            return Err(InvalidConfig::UnknownKey { key: key.to_owned(), known });
        };
        if declared.value_type.admits(value) {
            Ok(())
        } else {
            Err(InvalidConfig::WrongType { key: key.to_owned(), expected: declared.value_type })
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_entry_needs_a_declared_key_and_its_type() {
        let product = Product {
            name: "Shop",
            mount: "/api",
            schema_version: 1,
            scopes: &[],
            config_keys: vec![ConfigKey {
                name: "open_on_sunday",
                value_type: ValueType::Boolean,
                default: json!(false),
                meaning: "Whether orders are taken on Sundays.",
            }],
        };
        assert_eq!(product.check_config("open_on_sunday", &json!(true)), Ok(()));
        assert!(matches!(product.check_config("open_on_sunday", &json!("yes")), Err(InvalidConfig::WrongType { .. })));
        assert!(matches!(product.check_config("colour", &json!(1)), Err(InvalidConfig::UnknownKey { .. })));
    }
}

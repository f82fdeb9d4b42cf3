//! demo:types/echo in Rust: gives back a value of every WIT type.

use exports::demo::types::echo::{
    Bits, Color, Everything, Guest as Echo, Months, Permissions, Person, Shape,
};

wit_bindgen::generate!({ path: "../wit", world: "types" });

struct Types;

macro_rules! give_back {
    ($($function:ident: $type:ty,)*) => {
        $(fn $function(value: $type) -> $type {
            value
        })*
    };
}

impl Echo for Types {
    give_back! {
        echo_bool: bool,
        echo_u8: u8,
        echo_s8: i8,
        echo_u16: u16,
        echo_s16: i16,
        echo_u32: u32,
        echo_s32: i32,
        echo_u64: u64,
        echo_s64: i64,
        echo_f32: f32,
        echo_f64: f64,
        echo_char: char,
        echo_string: String,

        echo_bytes: Vec<u8>,
        echo_list: Vec<i32>,
        echo_strings: Vec<String>,
        echo_chunks: Vec<Vec<u8>>,
        echo_entries: Vec<(String, Vec<u8>)>,

        echo_tuple: (u8, String, f32),
        echo_record: Person,
        echo_variant: Shape,
        echo_enum: Color,
        echo_permissions: Permissions,
        echo_months: Months,
        echo_bits: Bits,

        echo_option: Option<String>,
        echo_option_bytes: Option<Vec<u8>>,
        echo_option_option: Option<Option<u32>>,
        echo_option_thrice: Option<Option<Option<bool>>>,

        echo_result: Result<u32, String>,
        echo_result_same: Result<String, String>,
        echo_result_ok: Result<u32, ()>,
        echo_result_err: Result<(), String>,
        echo_result_empty: Result<(), ()>,
        echo_result_option: Result<Option<u8>, Option<String>>,

        echo_everything: Everything,
    }

    #[rustfmt::skip]
    fn sum(
        a: u32, b: u32, c: u32, d: u32, e: u32, f: u32, g: u32, h: u32, i: u32,
        j: u32, k: u32, l: u32, m: u32, n: u32, o: u32, p: u32, q: u32,
    ) -> u64 {
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q].map(u64::from).iter().sum()
    }

    fn nothing() {}
}

impl Guest for Types {
    fn add(a: u32, b: u32) -> u32 {
        a.wrapping_add(b)
    }
}

export!(Types);

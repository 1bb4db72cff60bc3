use super::*;

/// A tool with one argument of this type.
fn schema_of(hint: &str, before: &str) -> Value {
    let source = format!("{before}\ndef f(x: {hint}):\n    \"\"\"Does.\n\n    Args:\n        x: An x.\n    \"\"\"\n");
    let spec = derive(&source).unwrap_or_else(|error| panic!("{hint}: {error}"));
    let mut schema = spec.parameters["properties"]["x"].clone();
    assert_eq!(schema.as_object_mut().expect("a schema").remove("description"), Some(json!("An x.")), "{hint}");
    schema
}

#[test]
fn the_contracts_sample_is_derived() {
    let source = "def get_weather(city: str) -> str:\n    \"\"\"Look up the weather.\n\n    Args:\n        city (str): \
                  City name.\n    \"\"\"\n    return \"-4\"\n";
    let ToolSpec { name, description, parameters } = derive(source).expect("derived");
    let expected = json!({
        "name": "get_weather",
        "description": "Look up the weather.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "City name."}},
            "required": ["city"],
        },
    });
    assert_eq!(json!({"name": name, "description": description, "parameters": parameters}), expected);
}

#[test]
fn hints_become_schemas() {
    let nullable = |schema: Value| json!({"anyOf": [schema, {"type": "null"}]});
    for (hint, expected) in [
        ("str", json!({"type": "string"})),
        ("int", json!({"type": "integer"})),
        ("float", json!({"type": "number"})),
        ("bool", json!({"type": "boolean"})),
        ("None", json!({"type": "null"})),
        ("Any", json!({})),
        ("object", json!({})),
        ("list", json!({"type": "array", "items": {}})),
        ("list[int]", json!({"type": "array", "items": {"type": "integer"}})),
        ("List[str]", json!({"type": "array", "items": {"type": "string"}})),
        ("typing.List[str]", json!({"type": "array", "items": {"type": "string"}})),
        ("collections.abc.Sequence[float]", json!({"type": "array", "items": {"type": "number"}})),
        ("list[list[int]]", json!({"type": "array", "items": {"type": "array", "items": {"type": "integer"}}})),
        ("set[str]", json!({"type": "array", "items": {"type": "string"}, "uniqueItems": true})),
        ("tuple", json!({"type": "array", "items": {}})),
        ("tuple[int, ...]", json!({"type": "array", "items": {"type": "integer"}})),
        ("Tuple[int, int]", json!({"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2})),
        (
            "tuple[int, str]",
            json!({"type": "array", "items": {"anyOf": [{"type": "integer"}, {"type": "string"}]}, "minItems": 2, "maxItems": 2}),
        ),
        ("dict", json!({"type": "object"})),
        ("dict[str, int]", json!({"type": "object", "additionalProperties": {"type": "integer"}})),
        ("Dict[str, Any]", json!({"type": "object", "additionalProperties": {}})),
        ("Optional[int]", nullable(json!({"type": "integer"}))),
        ("int | None", nullable(json!({"type": "integer"}))),
        ("Union[int, str]", json!({"anyOf": [{"type": "integer"}, {"type": "string"}]})),
        ("Union[int]", json!({"type": "integer"})),
        ("int | str | None", json!({"anyOf": [{"type": "integer"}, {"type": "string"}, {"type": "null"}]})),
        ("Optional[Any]", json!({})),
        ("list[str | None]", json!({"type": "array", "items": nullable(json!({"type": "string"}))})),
        ("Literal['a', 'b']", json!({"type": "string", "enum": ["a", "b"]})),
        ("typing.Literal[1, -2]", json!({"type": "integer", "enum": [1, -2]})),
        ("Literal['a', 1, None]", json!({"enum": ["a", 1, null]})),
        ("'list[int]'", json!({"type": "array", "items": {"type": "integer"}})),
        ("Annotated[int, Ge(3)]", json!({"type": "integer"})),
        ("Unheard", json!({"type": "object"})),
        ("some.module.Unheard[int]", json!({"type": "object"})),
        ("Callable[[int], str]", json!({"type": "object"})),
    ] {
        assert_eq!(schema_of(hint, ""), expected, "{hint}");
    }
}

#[test]
fn classes_and_names_of_the_source_become_schemas() {
    let model = "
class Place(BaseModel):
    \"\"\"A place.

    Attributes:
        country: Two letters.
    \"\"\"
    model_config = {}
    _cache: dict = {}
    kind: ClassVar[str] = 'place'
    name: str = Field(..., description='What it is called.')
    country: str = 'NO'
    tags: list[str] = Field(default_factory=list)
    near: 'Place | None' = None
    def far(self): pass
";
    let expected = json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "description": "What it is called."},
            "country": {"type": "string", "description": "Two letters.", "default": "NO"},
            "tags": {"type": "array", "items": {"type": "string"}},
            "near": {"anyOf": [{"type": "object"}, {"type": "null"}], "default": null},
        },
        "required": ["name"],
    });
    assert_eq!(schema_of("Place", model), expected);
    assert_eq!(schema_of("list[Place]", model), json!({"type": "array", "items": expected}));
    let dictionary = "
class Base(TypedDict):
    a: int
class Options(Base, total=False):
    b: str
    c: Required[str]
";
    assert_eq!(
        schema_of("Options", dictionary),
        json!({
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "string"}, "c": {"type": "string"}},
            "required": ["a", "c"],
        })
    );
    let color = "class Color(str, Enum):\n    RED = 'red'\n    BLUE = 'blue'\n";
    assert_eq!(schema_of("Color", color), json!({"type": "string", "enum": ["red", "blue"]}));
    let data = "@dataclass(frozen=True)\nclass D:\n    a: int\n    b: float = 1.5\n";
    assert_eq!(
        schema_of("D", data),
        json!({
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "number", "default": 1.5}},
            "required": ["a"],
        })
    );
    for alias in ["Unit = Literal['c', 'f']", "type Unit = Literal['c', 'f']", "Unit: TypeAlias = Literal['c', 'f']"] {
        assert_eq!(schema_of("Unit", alias), json!({"type": "string", "enum": ["c", "f"]}), "{alias}");
    }
}

#[test]
fn names_that_stand_for_themselves_or_for_too_much_come_to_an_end() {
    assert_eq!(
        schema_of("A", "A = Union['A', 'list[A]', int]"),
        json!({"anyOf": [{"type": "object"}, {"type": "array", "items": {"type": "object"}}, {"type": "integer"}]})
    );
    let classes: String = (1..40)
        .map(|n| {
            let fields: String = (0..20).map(|field| format!("    f{field}: C{}\n", n - 1)).collect();
            format!("class C{n}(BaseModel):\n{fields}")
        })
        .collect();
    assert!(schema_of("C39", &classes).to_string().len() < 1_000_000);
    let loops = "class A(B): pass\nclass B(A): pass\n";
    assert_eq!(schema_of("A", loops), json!({"type": "object"}));
    for nested in [
        format!("{}int{}", "list[".repeat(5000), "]".repeat(5000)),
        format!("int{}", " | int".repeat(5000)),
        format!("{}1{}", "(".repeat(5000), ")".repeat(5000)),
    ] {
        assert!(schema_of(&nested, "").is_object());
        let source = format!("def f(x: int = {nested}):\n    '''D.\n    Args:\n        x: X.\n    '''");
        assert!(derive(&source).expect("derived").parameters["properties"]["x"]["default"].is_null());
    }
}

#[test]
fn arguments_with_a_default_are_not_required() {
    for (default, expected) in [
        ("'a\\n\\u00f6\\x41\\101\\q'", json!("a\nöAA\\q")),
        ("r'a\\n'", json!("a\\n")),
        ("'a' \"b\"", json!("ab")),
        ("'''a\nb'''", json!("a\nb")),
        ("-3", json!(-3)),
        ("0x_ff", json!(255)),
        ("1_000", json!(1000)),
        ("-1.5e3", json!(-1500.0)),
        ("None", Value::Null),
        ("True", json!(true)),
        ("[1, ('a', None)]", json!([1, ["a", null]])),
        ("{'a': {'b': []}}", json!({"a": {"b": []}})),
    ] {
        let source = format!("def f(x: Any = {default}):\n    'D.\\n\\nArgs:\\n    x: X.'\n");
        let parameters = derive(&source).unwrap_or_else(|error| panic!("{default}: {error}")).parameters;
        let expected = json!({"type": "object", "properties": {"x": {"description": "X.", "default": expected}}});
        assert_eq!(parameters, expected, "{default}");
    }
    for unsayable in ["b'a'", "f'{1}'", "CONSTANT", "make()", "{1: 2}", "...", "10**100", "99999999999999999999999"] {
        let source = format!("def f(x: Any = {unsayable}):\n    'D.\\n\\nArgs:\\n    x: X.'\n");
        let parameters = derive(&source).expect(unsayable).parameters;
        assert_eq!(parameters, json!({"type": "object", "properties": {"x": {"description": "X."}}}), "{unsayable}");
    }
}

#[test]
fn docstrings_of_all_styles_are_understood() {
    let google = "
    Find a place.

    It looks at maps.

    Args:
        name (str): The name, which
            may go on: like this.

        limit (int, optional): How many.
        *unusual*: Who knows.
        bare (dict[str, (int)]):
            On its own line.

    Returns:
        list: Places.

    Raises:
        ValueError: if not.
";
    let numpy = "
    Find a place.

    It looks at maps.

    Parameters
    ----------
    name : str
        The name, which
        may go on: like this.
    limit : int, optional
        How many.
    unusual
        Who knows.
    bare : dict[str, (int)]
        On its own line.

    Returns
    -------
    list
        Places.
";
    let fields = "
    Find a place.

    It looks at maps.

    :param name: The name, which
        may go on: like this.
    :type name: str
    :param int limit: How many.
    :param unusual: Who knows.
    :param bare: On its own line.
    :type bare: dict[str, (int)]
    :returns: Places.
    :raises ValueError: if not.
";
    for text in [google, numpy, fields] {
        let docs = Docs::read(text);
        assert_eq!(docs.description, "Find a place.\n\nIt looks at maps.", "{text}");
        for (name, kind, described) in [
            ("name", Some("str"), "The name, which may go on: like this."),
            ("limit", Some("int"), "How many."),
            ("unusual", None, "Who knows."),
            ("bare", Some("dict[str, (int)]"), "On its own line."),
        ] {
            let entry = docs.arguments.get(name).unwrap_or_else(|| panic!("{name} is not in {docs:?}"));
            assert_eq!((entry.kind.as_deref(), entry.text.as_str()), (kind, described), "{text}");
        }
        assert_eq!(docs.arguments.len(), 4, "{docs:?}");
    }
    let after = Docs::read("Do.\n\nArgs:\n    a: A.\nAnd more: this.\n\nNote:\n    Not for the model.");
    assert_eq!(after.description, "Do.\n\nAnd more: this.");
}

#[test]
fn the_last_function_is_the_tool_and_the_state_is_not_its_argument() {
    let source = "
import asyncio
def helper(): pass

@decorated
async def find(agent_state: 'AgentState', name: str, *, limit=3, deep: Annotated[bool, 'How deep.'] = False) -> str:
    # a comment
    r'''Finds.

    Args:
        name: A name.
        limit (int): A limit.
    '''
    def inner(): pass
    return name

class Other:
    def method(self): pass

if __name__ == '__main__':
    def not_this(): pass
";
    let spec = derive(source).expect("derived");
    assert_eq!((spec.name.as_str(), spec.description.as_str()), ("find", "Finds."));
    assert_eq!(
        spec.parameters,
        json!({
            "type": "object",
            "properties": {
                "name": {"type": "string", "description": "A name."},
                "limit": {"type": "integer", "description": "A limit.", "default": 3},
                "deep": {"type": "boolean", "description": "How deep.", "default": false},
            },
            "required": ["name"],
        })
    );
    let none = derive("def now():\n    'The time.'\n").expect("derived");
    assert_eq!(none.parameters, json!({"type": "object", "properties": {}}));
}

#[test]
fn what_cannot_be_derived_says_what_to_change() {
    let long = "#".repeat(PYTHON_SOURCE_BYTES + 1);
    let name = "n".repeat(65);
    for (source, said) in [
        (long.as_str(), "source_code has 131073 bytes; a tool may have 131072"),
        ("", "no function at its top level"),
        ("x = 1\nclass A:\n    def f(self): pass\n", "no function at its top level"),
        ("def f():\n    pass\n\ndef g(:\n    pass\n", "look at line 4"),
        ("x = '''never closed\n", "look at line 1"),
        ("def f():\n    return (1,\n", "look at line"),
        (&format!("def {name}():\n    'D.'\n"), "is no name for a tool"),
        ("def größe():\n    'D.'\n", "'größe' is no name for a tool"),
        ("def f(): pass\n", "'f' has no docstring"),
        ("def f():\n    f'{1}'\n", "'f' has no docstring"),
        ("def f(a: int):\n    'D.'\n", "argument 'a' of 'f' is not described"),
        ("def f(a: int, b: int):\n    'D.\\nArgs:\\n    a: A.\\n    b:'\n", "argument 'b' of 'f' is not described"),
        ("def f(a):\n    'D.\\nArgs:\\n    a: A.'\n", "argument 'a' of 'f' has no type"),
        ("def f(*rest: int):\n    'D.\\nArgs:\\n    rest: R.'\n", "argument 'rest' of 'f' cannot be given by name"),
        ("def f(**rest):\n    'D.\\nArgs:\\n    rest: R.'\n", "argument 'rest' of 'f' cannot be given by name"),
        ("def f(a: int, /):\n    'D.\\nArgs:\\n    a: A.'\n", "argument 'a' of 'f' cannot be given by name"),
    ] {
        let error = derive(source).expect_err(source).to_string();
        assert!(error.contains(said), "{source:.100}: {error}");
    }
}

#[test]
fn a_source_is_checked_for_the_function_that_a_schema_names() {
    let source = "def first(a): pass\nasync def second(*b): pass\n";
    assert_eq!(check(source, "first"), Ok(()));
    assert_eq!(check(source, "second"), Ok(()));
    assert_eq!(check(source, "third"), Err(DeriveError::NotDefined { function: "third".to_owned() }));
    assert_eq!(check("def first(:\n", "first"), Err(DeriveError::Syntax { line: 1 }));
}

#[test]
fn a_given_schema_is_taken_as_it_is_or_refused() {
    let parameters = json!({"type": "object", "properties": {"a": {"type": "integer", "minimum": 3}}, "x": 1});
    let spec = given(&json!({"name": "f-1", "description": "D.", "parameters": parameters, "strict": true}));
    assert_eq!(
        spec,
        Ok(ToolSpec { name: "f-1".to_owned(), description: "D.".to_owned(), parameters: parameters.clone() })
    );
    let short = given(&json!({"name": "f", "parameters": null})).expect("enough");
    assert_eq!((short.description.as_str(), short.parameters), ("", json!({"type": "object", "properties": {}})));
    for (schema, said) in [
        (json!([]), "must be an object"),
        (json!({"parameters": parameters}), "name must be a string"),
        (json!({"name": "not a name", "parameters": parameters}), "is no name for a tool"),
        (json!({"name": "f", "description": 1}), "description must be a string"),
        (json!({"name": "f", "parameters": []}), "parameters must be a JSON Schema"),
        (json!({"name": "f", "parameters": {"type": "array"}}), "parameters must be a JSON Schema"),
    ] {
        let error = given(&schema).expect_err("refused").to_string();
        assert!(error.contains(said), "{schema}: {error}");
    }
}

package config

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"sigs.k8s.io/yaml"
)

const schemaFile = "../../conf/ip-masq-agent.schema.json"

// The file in conf/ is what the code says; make golden rewrites it.
func TestSchemaFile(t *testing.T) {
	if *update {
		if err := os.WriteFile(schemaFile, Schema(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, Schema()) {
		t.Errorf("%s is not what config.Schema returns: make golden", schemaFile)
	}
}

// beyondSchema are the refused files that a schema cannot refuse, because it sees values and not the text, or one value and
// not another. The agent's own lint refuses all of them.
var beyondSchema = map[string]string{
	"given twice":                               "a decoder keeps one of two keys",
	"given twice in JSON":                       "a decoder keeps one of two keys",
	"merge key":                                 "a decoder has merged it",
	"host bits":                                 "arithmetic",
	"host bits, IPv6 off":                       "arithmetic",
	"IPv4-mapped":                               "arithmetic",
	"IPv6 while off":                            "the agent's flag",
	"IPv6 exception while off":                  "the agent's flag",
	"in both lists":                             "two keys together",
	"in the defaults":                           "a key and a default",
	"in the defaults of the other family":       "a key and a default",
	"in the reserved ranges":                    "the agent's flag",
	"link-local exception":                      "two keys together",
	"link-local exception, IPv6":                "two keys together",
	"a bad item does not bring up the defaults": "arithmetic",
	"limit exceeded":                            "two keys together",
	"limit of none exceeded":                    "two keys together",
	"limit out of range":                        "arithmetic",
	"interval of zero":                          "arithmetic",
	"interval too short":                        "arithmetic",
	"interval too long":                         "arithmetic",
	"two documents":                             "a decoder reads one",
	"destination without a source":              "two keys together",
	"too many items":                            "the files together",
	"destination in two groups":                 "two keys together",
	"destination in the other list":             "two keys together",
	"destination in the defaults":               "a key and a default",
	"destination is link-local":                 "two keys together",
	"source with host bits":                     "arithmetic",
	"source of another family, which is off":    "the agent's flag",
	"sources to nowhere":                        "arithmetic",
	"port ranges the wrong way round":           "arithmetic",
	"traffic of the node beside all":            "two keys together",
	"traffic of the node beside the flag":       "the agent's flag",
	"second document is bad":                    "a decoder reads one",
}

// The schema accepts every file that the agent accepts, and refuses every file that it refuses, but for what a schema cannot see.
func TestSchemaAgreesWithParse(t *testing.T) {
	schema := compile(t)
	for _, c := range slices.Concat(acceptedCases, refusedCases) {
		t.Run(c.name, func(t *testing.T) {
			value, err := decodeForSchema(c.text)
			if err == nil {
				err = schema.Validate(value)
			}
			_, beyond := beyondSchema[c.name]
			switch {
			case c.opts.Lenient: // the schema is as strict as the default
			case c.want != nil && err != nil:
				t.Errorf("refuses what the agent accepts: %v", err)
			case c.want == nil && err == nil && !beyond:
				t.Error("accepts what the agent refuses")
			case c.want == nil && err != nil && beyond:
				t.Error("refuses it after all: remove it from beyondSchema")
			}
		})
	}
}

// A schema that refuses nothing would pass half of the above.
func TestSchemaNamesTheKey(t *testing.T) {
	value, err := decodeForSchema("nonMasqueradeCIDRs: [10.0.0.0]")
	if err != nil {
		t.Fatal(err)
	}
	if err := compile(t).Validate(value); err == nil || !strings.Contains(err.Error(), "/nonMasqueradeCIDRs/0") {
		t.Errorf("got %v", err)
	}
}

func compile(t *testing.T) *jsonschema.Schema {
	t.Helper()
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema()))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource(SchemaID, document); err != nil {
		t.Fatal(err)
	}
	schema, err := compiler.Compile(SchemaID)
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// decodeForSchema reads a file as a validator would: an error means that it is no YAML or JSON at all.
func decodeForSchema(text string) (any, error) {
	data := bytes.TrimPrefix([]byte(text), []byte("\ufeff"))
	if !isJSON(data) {
		var err error
		if data, err = yaml.YAMLToJSON(data); err != nil {
			return nil, err
		}
	}
	return jsonschema.UnmarshalJSON(bytes.NewReader(data))
}

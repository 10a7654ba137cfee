package config

import (
	"encoding/json"
	"fmt"
)

// The forms of values that a JSON schema can check. It does not see host bits, nor what two keys say together: `lint` does.
const (
	octet         = `(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])`
	ipv4Pattern   = octet + `([.]` + octet + `){3}/(3[0-2]|[12]?[0-9])`
	ipv6Pattern   = `[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*/(12[0-8]|1[01][0-9]|[1-9]?[0-9])`
	cidrPattern   = `^(` + ipv4Pattern + `|` + ipv6Pattern + `)$`
	periodPattern = `^([0-9]+([.][0-9]+)?(ns|us|µs|ms|s|m|h))+$`
)

// SchemaID is the schema's address, which editors may fetch it from.
const SchemaID = "https://raw.githubusercontent.com/ip-masq/ip-masq-cni/main/conf/ip-masq-agent.schema.json"

// Schema returns the JSON schema of the file, for editors and for checks in front of the agent.
func Schema() []byte {
	properties := map[string]any{}
	for _, key := range Keys() {
		property := map[string]any{"description": fmt.Sprintf("%s Default: %s.", key.Summary, key.Default)}
		switch key.Type {
		case CIDRs:
			property["type"] = "array"
			property["items"] = map[string]any{"type": "string", "pattern": cidrPattern}
		case Bool:
			property["type"] = "boolean"
		case Duration:
			property["type"], property["pattern"] = "string", periodPattern
		case Count:
			property["type"], property["minimum"] = "integer", 0
		}
		properties[key.Name] = property
	}
	text, err := json.MarshalIndent(map[string]any{
		"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SchemaID,
		"title":                "The configuration of ip-masq-agent",
		"type":                 []string{"object", "null"}, // an empty file
		"additionalProperties": false,
		"properties":           properties,
	}, "", "  ")
	if err != nil {
		panic(err) // maps of plain values
	}
	return append(text, '\n')
}

package config

import (
	"encoding/json"
	"fmt"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// The forms of values that a JSON schema can check. It does not see host bits, nor what two keys say together: `lint` does.
const (
	octet         = `(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])`
	ipv4Pattern   = octet + `([.]` + octet + `){3}/(3[0-2]|[12]?[0-9])`
	ipv6Pattern   = `[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*/(12[0-8]|1[01][0-9]|[1-9]?[0-9])`
	cidrPattern   = `^(` + ipv4Pattern + `|` + ipv6Pattern + `)$`
	periodPattern = `^([0-9]+([.][0-9]+)?(ns|us|µs|ms|s|m|h))+$`

	interfacePattern = `^!?([^\s!*/+"\\:;]{1,15}|[^\s!*/+"\\:;]{1,14}[*])$`

	port         = `(6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[1-9][0-9]{0,3})`
	portRange    = port + `(-` + port + `)?`
	portsPattern = `^(auto|` + portRange + `(,` + portRange + `)*)$`
)

// SchemaID is the schema's address, which editors may fetch it from.
const SchemaID = "https://raw.githubusercontent.com/ip-masq/ip-masq-cni/main/conf/ip-masq-agent.schema.json"

// schema is what a value of the type looks like.
func (t Type) schema() map[string]any {
	list := func(item map[string]any) map[string]any { return map[string]any{"type": "array", "items": item} }
	text := func(pattern string) map[string]any { return map[string]any{"type": "string", "pattern": pattern} }
	switch t {
	case CIDRs:
		return list(text(cidrPattern))
	case Bool:
		return map[string]any{"type": "boolean"}
	case Duration:
		return text(periodPattern)
	case Count:
		return map[string]any{"type": "integer", "minimum": 0}
	case Interfaces:
		return list(text(interfacePattern))
	case Sources:
		return map[string]any{"enum": []policy.Sources{policy.SourcesPods, policy.SourcesAll}}
	case Ports:
		return map[string]any{"anyOf": []any{text(portsPattern), map[string]any{"type": "integer", "minimum": 1, "maximum": 65535}}}
	case Annotations:
		words := map[string]any{"enum": []policy.PodAnnotations{policy.AllowAnnotations, policy.DenyAnnotations}}
		return map[string]any{"anyOf": []any{words, list(map[string]any{"enum": []string{policy.MasqueradeAnnotation, policy.SourceAddressesAnnotation}})}}
	case Egresses:
		some := list(text(cidrPattern))
		some["minItems"] = 1
		return list(map[string]any{
			"type": "object", "additionalProperties": false, "required": []string{keyDestinations, keySourceAddresses},
			"properties": map[string]any{
				keyDestinations: some, keySourceAddresses: some,
				keyWhenMissing: map[string]any{"enum": []policy.WhenMissing{policy.MissingMasquerade, policy.MissingDrop}},
			},
		})
	}
	panic(fmt.Sprintf("no schema for a %s", t))
}

// Schema returns the JSON schema of the file, for editors and for checks in front of the agent.
func Schema() []byte {
	properties := map[string]any{}
	for _, key := range Keys() {
		property := key.Type.schema()
		property["description"] = fmt.Sprintf("%s Default: %s.", key.Summary, key.Default)
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

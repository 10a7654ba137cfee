package main

import (
	"encoding/json"
	"log/slog"
	"maps"
	"slices"
	"strings"
)

// knownKeys are the keys of the plugin's own entry, and those that the specification gives to every entry or that runtimes add.
var knownKeys = []string{
	"type", "masqChain", "backend", "masquerade", "enableIPv6", "stateDir", "dataDir",
	"cniVersion", "cniVersions", "name", "prevResult", "runtimeConfig", "capabilities", "args", "ipMasq", "ipam", "dns",
}

// reservedKeys begins the names that the specification keeps for runtimes (section 1, "cni.dev/").
const reservedKeys = "cni.dev/"

// warnOfUnknownKeys names keys that have no effect: a misspelt one would otherwise go unnoticed.
func warnOfUnknownKeys(log *slog.Logger, stdin []byte) {
	var keys map[string]json.RawMessage
	_ = json.Unmarshal(stdin, &keys) // parseConf has reported what is wrong with it
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		if slices.Contains(knownKeys, key) || strings.HasPrefix(key, reservedKeys) {
			continue
		}
		i := slices.IndexFunc(knownKeys, func(known string) bool { return strings.EqualFold(known, key) })
		if i >= 0 {
			log.Warn("a key of the ip-masq entry is written with other letters", "key", key, "write", knownKeys[i])
			continue
		}
		log.Warn("unknown key in the ip-masq entry: it has no effect", "key", key)
	}
}

package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ip-masq/ip-masq-cni/pkg/atomicfile"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

const policyFile = "policy.json"

// SavePolicy persists the last good policy, so that after a reboot the first ADD puts it in place before the agent is up.
func (n *Node) SavePolicy(p policy.Policy) error {
	data, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("encode policy: %w", err)
	}
	return atomicfile.WriteSync(filepath.Join(n.dataDir, policyFile), append(data, '\n'), 0o644)
}

// policyThere notices that somebody removed the file.
func (n *Node) policyThere() bool {
	_, err := os.Stat(filepath.Join(n.dataDir, policyFile))
	return err == nil
}

// LoadPolicy reads the persisted policy; the error is fs.ErrNotExist where there is none.
func (n *Node) LoadPolicy() (policy.Policy, error) {
	data, err := os.ReadFile(filepath.Join(n.dataDir, policyFile))
	if err != nil {
		return policy.Policy{}, fmt.Errorf("read persisted policy: %w", err)
	}
	var p policy.Policy
	if err := json.Unmarshal(data, &p); err != nil {
		return policy.Policy{}, fmt.Errorf("persisted policy %s: %w", filepath.Join(n.dataDir, policyFile), err)
	}
	return p, p.Validate()
}

// policy returns the persisted policy, or the defaults where there is none that can be used.
func (n *Node) policy() policy.Policy {
	p, err := n.LoadPolicy()
	if err == nil {
		return p
	}
	if !errors.Is(err, fs.ErrNotExist) {
		n.log("using the default policy", "error", err)
	}
	return policy.Default(n.defaults)
}

// settings returns the persisted policy's settings without decoding its prefixes, of which there may be a hundred thousand:
// this runs for every pod. They are the first key of the file.
func (n *Node) settings() policy.Settings {
	file, err := os.Open(filepath.Join(n.dataDir, policyFile))
	if err != nil {
		return n.defaults
	}
	defer func() { _ = file.Close() }()
	decoder := json.NewDecoder(file)
	var s policy.Settings
	if first, err := firstKey(decoder); err != nil || first != "settings" || decoder.Decode(&s) != nil || s.Validate() != nil {
		return n.policy().Settings
	}
	return s
}

func firstKey(decoder *json.Decoder) (string, error) {
	if _, err := decoder.Token(); err != nil {
		return "", err
	}
	token, err := decoder.Token()
	if err != nil {
		return "", err
	}
	key, _ := token.(string)
	return key, nil
}

package attachment

import "fmt"

// Bypassing is what to say of an interface whose packets do not pass the node: plugin, installer and status say the same.
func Bypassing(kind string) string {
	return fmt.Sprintf("packets of a %s interface leave through the network card itself and never meet the node's rules, so ip-masq cannot masquerade them", kind)
}

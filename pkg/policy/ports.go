package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// PortRange is an inclusive range of source ports, 1 to 65535.
type PortRange struct {
	First uint16 `json:"first"`
	Last  uint16 `json:"last"`
}

// PortRanges are the source ports that masqueraded connections may use; empty means the kernel's choice.
type PortRanges []PortRange

// ParsePortRanges reads "1024-29999,32768-65535", the form of --to-ports. Order and overlaps are kept, as in the Kubernetes
// agent; the empty text means no restriction.
func ParsePortRanges(text string) (PortRanges, error) {
	if text == "" {
		return nil, nil
	}
	var ranges PortRanges
	for item := range strings.SplitSeq(text, ",") {
		r, err := ParsePortRange(item)
		if err != nil {
			return nil, err
		}
		ranges = append(ranges, r)
	}
	return ranges, nil
}

// AutoPorts stands in the place of ranges for those that the agent chooses.
const AutoPorts = "auto"

// ParseToPorts reads what --to-ports and toPorts take: ranges, or "auto".
func ParseToPorts(text string) (ranges PortRanges, auto bool, err error) {
	if text == AutoPorts {
		return nil, true, nil
	}
	if slices.Contains(strings.Split(text, ","), AutoPorts) {
		return nil, false, fmt.Errorf("port ranges %q: want %q alone, or ranges alone", text, AutoPorts)
	}
	ranges, err = ParsePortRanges(text)
	return ranges, false, err
}

// ParsePortRange reads "FIRST-LAST", or one port.
func ParsePortRange(item string) (PortRange, error) {
	low, high, isRange := strings.Cut(item, "-")
	if !isRange {
		high = low
	}
	first, err1 := strconv.ParseUint(low, 10, 16)
	last, err2 := strconv.ParseUint(high, 10, 16)
	if err1 != nil || err2 != nil || first == 0 || last < first {
		return PortRange{}, fmt.Errorf("port range %q: want FIRST-LAST or one port, between 1 and 65535", item)
	}
	return PortRange{uint16(first), uint16(last)}, nil
}

// Size counts the ports of the range.
func (r PortRange) Size() int { return int(r.Last) - int(r.First) + 1 }

// String returns "FIRST-LAST", or the port alone where both are the same.
func (r PortRange) String() string {
	if r.First == r.Last {
		return strconv.Itoa(int(r.First))
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

// Size is the sum of the ranges' sizes; ports in two ranges count twice.
func (rs PortRanges) Size() int {
	sum := 0
	for _, r := range rs {
		sum += r.Size()
	}
	return sum
}

// String returns the ranges as --to-ports takes them.
func (rs PortRanges) String() string {
	items := make([]string, len(rs))
	for i, r := range rs {
		items[i] = r.String()
	}
	return strings.Join(items, ",")
}

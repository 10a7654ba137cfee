package conflicts

import (
	"bytes"

	"github.com/google/nftables/expr"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// field is the part of a packet that a register holds.
type field struct {
	kind   fieldKind
	source bool   // of an address
	size   int    // bytes of the address that were loaded, from its first
	mask   []byte // nil: all bits
}

type fieldKind int

const (
	unknownField  fieldKind = iota
	addressField            // of the family that the rule is for
	localField              // the type of an address
	markField               //
	protocolField           // the layer 3 protocol
	outField                // the name of the interface
)

// load puts into a register what an expression takes from the packet.
func (r *reading) load(e expr.Any) {
	switch e := e.(type) {
	case *expr.Meta:
		if !e.SourceRegister {
			r.registers[e.Register] = metaField(e.Key)
		}
	case *expr.Payload:
		r.registers[e.DestRegister] = payloadField(r.match.family, e)
	case *expr.Fib:
		r.registers[e.Register] = fibField(e)
	case *expr.Bitwise:
		r.registers[e.DestRegister] = r.registers[e.SourceRegister].masked(e)
	}
}

func metaField(key expr.MetaKey) field {
	switch key {
	case expr.MetaKeyMARK:
		return field{kind: markField}
	case expr.MetaKeyNFPROTO:
		return field{kind: protocolField}
	case expr.MetaKeyOIFNAME:
		return field{kind: outField}
	}
	return field{}
}

func fibField(e *expr.Fib) field {
	if !e.ResultADDRTYPE {
		return field{}
	}
	return field{kind: localField, source: e.FlagSADDR}
}

func (f field) masked(e *expr.Bitwise) field {
	if len(bytes.Trim(e.Xor, "\x00")) > 0 {
		return field{}
	}
	f.mask = e.Mask
	return f
}

// payloadField recognises the addresses by where they stand in the IP header, whose family the table or an earlier comparison
// told. A prefix that ends with a byte is loaded and compared without the rest.
func payloadField(family policy.Family, e *expr.Payload) field {
	source, destination := uint32(12), uint32(16)
	if family == policy.IPv6 {
		source, destination = 8, 24
	}
	if family == 0 || e.Base != expr.PayloadBaseNetworkHeader || int(e.Len) > family.Bits()/8 {
		return field{}
	}
	switch e.Offset {
	case source:
		return field{kind: addressField, source: true, size: int(e.Len)}
	case destination:
		return field{kind: addressField, size: int(e.Len)}
	}
	return field{}
}

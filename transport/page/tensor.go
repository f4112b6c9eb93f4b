package page

// Tensor finds one tensor of any safetensors blob, such as a file of weights, checked as a page's container is. data aliases blob.
func Tensor(blob []byte, name string) (shape []int, data []byte, ok bool, err error) {
	lim := DefaultLimits()
	lim.MaxHeader, lim.MaxTensors = 16<<20, 1<<16
	c, err := open(blob, lim)
	if err != nil {
		return nil, nil, false, err
	}
	for _, t := range c.tensors {
		if t.name == name {
			return t.shape, t.data, true, nil
		}
	}
	return nil, nil, false, nil
}

/* The end of a flash-attention kernel, for flash_tmpl.cl and flash_xmx_tmpl.cl, inside of their
   function: rows become averages and go to dst, with their log-sum-exp. Defined before it:
   WIDTH         lanes of a sub-group
   RESULT(r, j)  row r, column j * WIDTH + lane of the output times `factor`, as dst has it */
    UNROLL
    for (int r = 0; r < ROWS; r++) {
        const long row = first_row + r;
        const float total = sub_group_reduce_add(sum[r]);
        const float factor = total > 0 ? 1.0f / total : 0.0f;
        if (row >= q_len) {
            continue;
        }
        UNROLL
        for (int j = 0; j < HEAD / WIDTH; j++) {
            int d = j * WIDTH + lane;
            if (d < head_dim) {
                dst[row * dst_stride + head * head_dim + d] = RESULT(r, j);
            }
        }
        if (lse != 0 && lane == 0) {
            lse[head * q_len + row] = (most[r] + log2(total)) * LN_2;
        }
    }

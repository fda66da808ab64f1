/* exp and the activations over the vocabulary of vec_avx2.h or vec_avx512.h, which is included
   before. */

/* e^x for x cut to [-87, 87], where it and its inverse are normal numbers; NaN stays NaN.
   Cephes' polynomial, relative error about 1e-7. */
static inline vec vec_exp(vec x)
{
    x = vec_min(vec_set(87.0f), x);
    x = vec_max(vec_set(-87.0f), x);
    vec n = vec_round(vec_mul(x, vec_set(1.44269504088896341f)));
    vec r = vec_fma(n, vec_set(-0.693359375f), x);
    r = vec_fma(n, vec_set(2.12194440e-4f), r);
    vec p = vec_set(1.9875691500e-4f);
    p = vec_fma(p, r, vec_set(1.3981999507e-3f));
    p = vec_fma(p, r, vec_set(8.3334519073e-3f));
    p = vec_fma(p, r, vec_set(4.1665795894e-2f));
    p = vec_fma(p, r, vec_set(1.6666665459e-1f));
    p = vec_fma(p, r, vec_set(5.0000001201e-1f));
    p = vec_fma(p, vec_mul(r, r), vec_add(r, vec_set(1.0f)));
    return vec_scale2(p, n);
}

/* 2^x for x <= 0; 0 from VEC_LEAST_EXP2 on (as for -inf), NaN stays NaN. A minimax polynomial
   of degree 5 on [-1/2, 1/2]: relative error 2.4e-7. */
static inline vec vec_exp2_negative(vec x)
{
    x = vec_max(vec_set(VEC_LEAST_EXP2), x);
    vec n = vec_round(x), r = vec_sub(x, n);
    vec p = vec_set(1.3276472e-3f);
    p = vec_fma(p, r, vec_set(9.6755410e-3f));
    p = vec_fma(p, r, vec_set(5.5507131e-2f));
    p = vec_fma(p, r, vec_set(2.4022120e-1f));
    p = vec_fma(p, r, vec_set(6.9314694e-1f));
    p = vec_fma(p, r, vec_set(1.0000001f));
    return vec_scale2(p, n);
}

/* max(x, least) / (1 + e^u): below `least` the result is as good as zero, and no large negative
   x meets a factor that is only nearly zero. */
static inline vec vec_over_exp(vec x, float least, vec u)
{
    x = vec_max(vec_set(least), x);
    return vec_mul(x, vec_reciprocal(vec_add(vec_set(1.0f), vec_exp(u))));
}

/* x / (1 + e^-x) */
static inline vec vec_silu(vec x)
{
    return vec_over_exp(x, -87.0f, vec_sub(vec_set(0.0f), x));
}

/* 0.5 x (1 + tanh(u)) = x / (1 + e^(-2u)), u = sqrt(2 / pi) (x + 0.044715 x^3) */
static inline vec vec_gelu_tanh(vec x)
{
    vec cube = vec_mul(vec_mul(x, x), x);
    vec u2 = vec_mul(vec_set(-1.5957691216f), vec_fma(vec_set(0.044715f), cube, x));
    return vec_over_exp(x, -32.0f, u2);
}

static inline vec vec_activate(vec x, dk_activation activation)
{
    switch (activation) {
    case DK_ACT_SILU:
        return vec_silu(x);
    case DK_ACT_GELU_TANH:
        return vec_gelu_tanh(x);
    default:
        return x;
    }
}

/* Up to VEC values at p[0 .. count), the rest zero; and back. */
static inline vec vec_load_any(const void *p, dk_dtype type, int64_t at, int count)
{
    if (count >= VEC) {
        return type == DK_F32 ? vec_load((const float *)p + at)
                              : vec_load_bf16((const uint16_t *)p + at);
    }
    float values[VEC] = {0};
    for (int i = 0; i < count; i++) {
        values[i] = type == DK_F32 ? ((const float *)p)[at + i]
                                   : dk_f32_from_bf16(((const uint16_t *)p)[at + i]);
    }
    return vec_load(values);
}

static inline void vec_store_any(void *p, dk_dtype type, int64_t at, int count, vec x)
{
    if (count >= VEC) {
        if (type == DK_F32) {
            vec_store((float *)p + at, x);
        } else {
            vec_store_bf16((uint16_t *)p + at, x);
        }
        return;
    }
    float values[VEC];
    vec_store(values, x);
    for (int i = 0; i < count; i++) {
        if (type == DK_F32) {
            ((float *)p)[at + i] = values[i];
        } else {
            ((uint16_t *)p)[at + i] = dk_bf16_from_f32(values[i]);
        }
    }
}
